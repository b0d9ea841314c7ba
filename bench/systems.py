"""The systems that are compared: rqjobs and RQ always, others where they are installed.

``BENCH_PEERS`` (or ``--peers FOLDER``) names a folder with a virtual environment a library under ``v/`` (huey,
dramatiq, celery, saq, taskiq) and ``node/`` with ``npm install bullmq``.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil
import redis

from rqjobs.broker.embedded import ensure_server, stop_server

ROOT = Path(__file__).parents[1]
APPS = ROOT / "bench" / "apps"


@dataclass(frozen=True)
class System:
    """One way to run jobs."""

    name: str
    app: str
    """Its module in bench/apps."""
    worker: tuple[str, ...]
    """The command; ``SLOTS``, ``KIND`` and ``PROCESSES`` in it are replaced, ``BIN/`` is its environment's folder of
    programs. One without ``PROCESSES`` is started so many times, as number ``NUMBER``."""
    peer: str = ""
    """Its folder under BENCH_PEERS/v; empty for what the project itself has installed."""
    slots: bool = True
    """Whether it runs many jobs at once."""

    @property
    def binaries(self) -> Path | None:
        """Where its programs are; None if it is not installed."""
        if not self.peer:
            return Path(sys.executable).parent
        folder = Path(os.environ.get("BENCH_PEERS", "/nonexistent"))
        found = folder / "node" if self.peer == "node" else folder / "v" / self.peer / "bin"
        return found if found.exists() else None


SYSTEMS = (
    System("rqjobs", "rqjobs_app", ("BIN/rqjobs", "worker", "bench-KIND")),
    System("RQ SimpleWorker", "rq_app", ("BIN/python", str(APPS / "rq_worker.py"), "SimpleWorker"), slots=False),
    System("RQ", "rq_app", ("BIN/python", str(APPS / "rq_worker.py"), "Worker"), slots=False),
    System("BullMQ", "bullmq", ("node", str(APPS / "bullmq_worker.js")), "node"),
    System("Dramatiq", "dramatiq_app", ("BIN/dramatiq", "dramatiq_app", "-p", "PROCESSES", "-t", "SLOTS"), "dramatiq"),
    System("Huey", "huey_app", ("BIN/huey_consumer", "huey_app.huey", "-w", "SLOTS", "-k", "thread", "-q"), "huey"),
    System(
        "Celery",
        "celery_app",
        ("BIN/celery", "-A", "celery_app", "worker", "-P", "threads", "-c", "SLOTS", "-n", "NUMBER@%h"),
        "celery",
    ),
    System("SAQ", "saq_app", ("BIN/saq", "saq_app.settings", "--workers", "PROCESSES"), "saq"),
    System(
        "taskiq",
        "taskiq_app",
        ("BIN/taskiq", "worker", "taskiq_app:broker", "-w", "PROCESSES", "--max-async-tasks", "SLOTS"),
        "taskiq",
    ),
)  # fmt: skip


def installed() -> list[System]:
    """The systems that can be measured here."""
    return [system for system in SYSTEMS if system.binaries is not None]


class Stage:
    """A Redis of its own for the benchmark, on this machine's cores, and the processes on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = ensure_server(folder / "redis")
        self.redis = redis.Redis(unix_socket_path=str(self.socket))
        self.redis.config_set(
            "auto-aof-rewrite-percentage", 0
        )  # or it begins now in one system's run, now in another's
        self.marks = folder / "marks"
        self.more: dict[str, object] = {}
        """What jobs carry beyond an id, a name and an address."""

    def environment(self, slots: int = 50) -> dict[str, str]:
        """What the processes of a system find in their environment."""
        return {
            **os.environ,
            "PYTHONPATH": f"{APPS}:{ROOT}",
            "NODE_PATH": str(Path(os.environ.get("BENCH_PEERS", "")) / "node" / "node_modules"),
            "REDIS_URL": f"unix://{self.socket}",
            "BENCH_REDIS": f"unix://{self.socket}",
            "BENCH_SOCKET": str(self.socket),
            "BENCH_MARKS": str(self.marks),
            "BENCH_MORE": json.dumps(self.more),
            "BENCH_SLOTS": str(slots),
            "RQJOBS_IMPORT": "bench.apps.rqjobs_app",
            "RQJOBS_DATA": str(self.folder / "data"),
        }

    def clear(self) -> None:
        """Forgets everything."""
        self.redis.flushall()
        self.marks.write_bytes(b"")

    def produce(self, system: System, *args: str) -> str:
        """Runs the system's producer to its end."""
        if system.peer == "node":
            command = ["node", str(APPS / "bullmq_produce.js"), *args]
        else:
            command = [f"{system.binaries}/python", str(APPS / "produce.py"), system.app, *args]
        done = subprocess.run(
            command, env=self.environment(), capture_output=True, text=True, check=False, cwd=self.folder
        )
        if done.returncode:
            raise RuntimeError(f"{system.name}: {done.stderr[-500:]}")
        return done.stdout.strip()

    @contextmanager
    def worker(self, system: System, kind: str, slots: int) -> Iterator[psutil.Process]:
        """The system's worker, for as long as the block runs."""
        with self.workers(system, kind, slots, 1) as (process,):
            yield process

    @contextmanager
    def workers(self, system: System, kind: str, slots: int, processes: int) -> Iterator[list[psutil.Process]]:
        """So many worker processes of the system, or the one that is their parent, for as long as the block runs."""
        started = []
        for number in range(1 if "PROCESSES" in system.worker else processes):
            words = [
                word.replace("BIN/", f"{system.binaries}/")
                .replace("SLOTS", str(slots))
                .replace("KIND", kind)
                .replace("PROCESSES", str(processes))
                .replace("NUMBER", str(number))
                for word in system.worker
            ]
            with (self.folder / f"worker-{number}.log").open("w") as log:
                process = subprocess.Popen(
                    words, env=self.environment(slots), stdout=log, stderr=log, cwd=self.folder, start_new_session=True
                )
            started.append(process)
        try:
            yield [psutil.Process(process.pid) for process in started]
        finally:
            for process in started:
                process.terminate()
            for process in started:
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()

    def times(self) -> list[float]:
        """When each job was done."""
        data = self.marks.read_bytes()
        return sorted(struct.unpack(f"{len(data) // 8}d", data[: len(data) // 8 * 8]))

    def until(self, count: int, limit: float) -> bool:
        """Waits until so many jobs are done; False if that takes longer than ``limit`` seconds."""
        end = time.monotonic() + limit
        while self.marks.stat().st_size < 8 * count:
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        return True

    def redis_cpu(self) -> float:
        """CPU seconds of Redis so far."""
        info = self.redis.info("cpu")
        return float(info["used_cpu_user"] + info["used_cpu_sys"])


@contextmanager
def stage() -> Iterator[Stage]:
    """A stage that is taken down afterwards."""
    with tempfile.TemporaryDirectory(prefix="rqjobs-bench-") as name:
        built = Stage(Path(name))
        try:
            yield built
        finally:
            built.redis.close()
            stop_server(Path(name) / "redis")


def show(title: str, heads: list[str], rows: list[list[str]]) -> None:
    """Prints one table."""
    print(f"\n{title}")
    widths = [max(len(row[n]) for row in [heads, *rows]) for n in range(len(heads))]
    for row in [heads, ["-" * width for width in widths], *rows]:
        cells = zip(row, widths, strict=True)
        print("  ".join(word.rjust(width) if n else word.ljust(width) for n, (word, width) in enumerate(cells)))


def middle(values: list[float]) -> float:
    """The median; 0 for nothing."""
    return median(values) if values else 0.0


def sent(text: str) -> list[float]:
    """The times that a latency run answers."""
    found: list[float] = json.loads(text)
    return found
