"""Memory, descriptors and threads of the workers over time."""

from __future__ import annotations

import statistics
import threading
import time
from typing import NamedTuple, Self

import psutil

from tests.chaos.crew import Crew


class Sample(NamedTuple):
    """One worker at one moment."""

    seconds: float
    """Since the sampling began."""
    pid: int
    rss: float
    """Resident memory in MiB, with that of its children."""
    descriptors: int
    threads: int


class Sampler:
    """Takes samples of all workers while entered."""

    def __init__(self, crew: Crew, every: float) -> None:
        self._crew, self._every = crew, every
        self.samples: list[Sample] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def peak(self) -> float:
        """The most MiB that a worker had."""
        return max((sample.rss for sample in self.samples), default=0.0)

    def level(self, what: str, start: float, end: float) -> float:
        """The median over all workers of ``what`` within a part of the time, from 0 to 1."""
        whole = self.samples[-1].seconds
        return statistics.median(
            getattr(sample, what) for sample in self.samples if start * whole <= sample.seconds <= end * whole
        )

    def table(self, rows: int = 10) -> str:
        """Medians over time."""
        lines = [f"{'minutes':>9}{'MiB':>9}{'descriptors':>13}{'threads':>9}"]
        for row in range(rows):
            part = (row / rows, (row + 1) / rows)
            levels = [self.level(what, *part) for what in ("rss", "descriptors", "threads")]
            until = self.samples[-1].seconds * part[1] / 60
            lines.append(f"{until:>9.1f}{levels[0]:>9.0f}{levels[1]:>13.0f}{levels[2]:>9.0f}")
        return "\n".join(lines)

    def _run(self) -> None:
        while not self._over.wait(self._every):
            for worker in self._crew.workers:
                try:
                    process = psutil.Process(worker.pid)
                    everyone = [process, *process.children(recursive=True)]
                    rss = sum(one.memory_info().rss for one in everyone) / (1 << 20)
                    seconds = time.monotonic() - self._began
                    self.samples.append(Sample(seconds, worker.pid, rss, process.num_fds(), process.num_threads()))
                except psutil.NoSuchProcess:
                    continue
