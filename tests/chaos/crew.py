"""The worker processes of one run. One that ends is started again, as a service manager does."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from tests.chaos.ledger import Ledger, Window

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
"""Seconds that a worker may take to end at SIGTERM before that is a fault."""


class Worker:
    """One process, and what it is started with."""

    def __init__(self, log: Path, words: tuple[str, ...], environment: dict[str, str], memory: int | None) -> None:
        self.log, self.words, self.environment = log, words, environment
        self.memory = memory
        """The limit of its address space in bytes."""
        self.start()

    def start(self) -> None:
        command = [str(Path(sys.executable).parent / "rqjobs"), "worker", *self.words]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(ROOT), **self.environment},
            )
        if self.memory is not None:
            resource.prlimit(self.pid, resource.RLIMIT_AS, (self.memory, self.memory))

    @property
    def pid(self) -> int:
        return self.process.pid


class Crew:
    """The workers; a thread looks after them while entered."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self.folder, self.ledger = folder, ledger
        self.workers: list[Worker] = []
        self.ended: list[int] = []
        """The exit codes of processes that ended by themselves or were killed."""
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_after, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()

    def add(self, *words: str, memory: int | None = None, **environment: str) -> Worker:
        """One more."""
        with self._lock:
            worker = Worker(self.folder / f"worker-{len(self.workers)}.log", words, environment, memory)
            self.workers.append(worker)
        return worker

    def kill(self, worker: Worker) -> None:
        """SIGKILL, and another one."""
        with self.ledger.window("worker killed", worker.pid), self._lock:
            worker.process.kill()
            worker.process.wait()
            self.ended.append(worker.process.returncode)
            worker.start()

    def restart(self, worker: Worker) -> bool:
        """SIGTERM, as a deploy does, and another one; whether it ended by itself."""
        with self._lock:
            worker.process.terminate()
            polite = self._wait(worker, PATIENCE)
            self.ended.append(worker.process.returncode)
            worker.start()
        return polite

    @contextlib.contextmanager
    def frozen(self, worker: Worker) -> Iterator[None]:
        """SIGSTOP while the block runs."""
        process = worker.process
        with self.ledger.window("worker stopped", process.pid):
            process.send_signal(signal.SIGSTOP)
            try:
                yield
            finally:
                process.send_signal(signal.SIGCONT)

    def stop(self) -> list[str]:
        """SIGTERM to all, and what went wrong with it."""
        with self._lock:
            self._over.set()
            for worker in self.workers:
                if worker.process.poll() is None:
                    worker.process.terminate()
            return [
                f"{worker.log.name}: not ended {PATIENCE:.0f} s after SIGTERM"
                for worker in self.workers
                if not self._wait(worker, PATIENCE)
            ]

    def logs(self) -> str:
        """What all have logged."""
        return "\n".join(worker.log.read_text(errors="replace") for worker in self.workers)

    @staticmethod
    def _wait(worker: Worker, seconds: float) -> bool:
        try:
            worker.process.wait(seconds)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
            return False
        return True

    def _look_after(self) -> None:
        while not self._over.wait(0.2):
            with self._lock:
                for worker in self.workers:
                    if worker.process.poll() is not None and not self._over.is_set():
                        self.ended.append(worker.process.returncode)
                        self.ledger.windows.append(self._end_of(worker))
                        worker.start()

    @staticmethod
    def _end_of(worker: Worker) -> Window:
        now = time.time()
        return Window(now - 1, now, worker.pid, f"worker ended with {worker.process.returncode}")
