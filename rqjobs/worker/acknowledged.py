"""Outcomes that Redis has acknowledged, for as long as a failover may lose them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterable
from typing import NamedTuple, Protocol

from rqjobs.worker.claimed_job import Outcome

KEPT = 30.0
"""Seconds. In a planned failover by Sentinel, clients write to the old primary for some 11 s, and all of it is lost."""

MOST = 20_000
"""Outcomes that are kept at most: with small results about 10 MiB."""

MOST_BYTES = 32 * 2**20
"""Bytes of results and errors that are kept at most."""


class _Job(Protocol):
    @property
    def job_id(self) -> str: ...
    @property
    def execution(self) -> str: ...
    @property
    def lane(self) -> str: ...
    @property
    def outcome(self) -> Outcome | None: ...


class Ending(NamedTuple):
    """What is needed to write an outcome once more."""

    job_id: str
    execution: str
    lane: str
    outcome: Outcome


class Endings:
    """The latest outcomes. May be used by several threads."""

    def __init__(self) -> None:
        self._batches: deque[tuple[float, list[Ending], int]] = deque()
        self._count = self._bytes = 0
        self._lock = threading.Lock()

    def add(self, now: float, jobs: Iterable[_Job]) -> None:
        """Redis has acknowledged these outcomes; ``now`` is ``time.monotonic()``. Drops what is too old or too much."""
        batch = [Ending(job.job_id, job.execution, job.lane, job.outcome) for job in jobs if job.outcome is not None]
        size = sum([len(str(ending.outcome.words[0])) for ending in batch])
        with self._lock:
            self._batches.append((now, batch, size))
            self._count += len(batch)
            self._bytes += size
            while self._batches[0][0] < now - KEPT or self._count > MOST or self._bytes > MOST_BYTES:
                _, old, size = self._batches.popleft()
                self._count -= len(old)
                self._bytes -= size
                if not self._batches:
                    break

    def find(self, executions: Collection[str]) -> list[Ending]:
        """The outcomes of these executions, as far as they are kept, oldest first."""
        wanted = set(executions)
        with self._lock:
            return [ending for _, batch, _ in self._batches for ending in batch if ending.execution in wanted]
