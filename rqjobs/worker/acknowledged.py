"""The latest outcomes that Redis has acknowledged, kept until a failover can no longer lose them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterable
from typing import NamedTuple

from rqjobs.worker.outcomes import Outcome
from rqjobs.worker.protocol import HasOutcome

KEEP_SECONDS = 30.0
"""Seconds that an outcome is kept: in a planned failover by Sentinel, clients write to the old primary for some 11 s,
and all of these writes are lost."""

MAX_OUTCOMES = 20_000
"""The most outcomes kept: with small results they take about 10 MiB."""

MAX_BYTES = 32 * 2**20
"""The most bytes of results and errors kept, so that large ones do not fill the worker's memory."""


class AcknowledgedOutcome(NamedTuple):
    """An outcome, with the job, execution and lane that are needed to write it again."""

    job_id: str
    execution: str
    lane: str
    outcome: Outcome


class AcknowledgedOutcomes:
    """The latest outcomes. Thread-safe."""

    def __init__(self) -> None:
        self._batches: deque[tuple[float, list[AcknowledgedOutcome], int]] = deque()
        self._count = self._bytes = 0
        self._lock = threading.Lock()

    def add(self, now: float, jobs: Iterable[HasOutcome]) -> None:
        """Adds the outcomes of ``jobs``, and drops those that are too old or over the limits.

        Args:
            now: ``time.monotonic()``.
            jobs: jobs whose outcomes Redis has acknowledged.
        """
        batch = [
            AcknowledgedOutcome(job.job_id, job.execution, job.lane, job.outcome)
            for job in jobs
            if job.outcome is not None
        ]
        size = sum([kept.outcome.size for kept in batch])
        with self._lock:
            self._batches.append((now, batch, size))
            self._count += len(batch)
            self._bytes += size
            while self._batches[0][0] < now - KEEP_SECONDS or self._count > MAX_OUTCOMES or self._bytes > MAX_BYTES:
                _, old, size = self._batches.popleft()
                self._count -= len(old)
                self._bytes -= size
                if not self._batches:
                    break

    def find(self, executions: Collection[str]) -> list[AcknowledgedOutcome]:
        """Returns the outcomes of these executions that are still kept, oldest first."""
        wanted = set(executions)
        with self._lock:
            return [kept for _, batch, _ in self._batches for kept in batch if kept.execution in wanted]
