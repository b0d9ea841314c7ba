"""The state of one queue in this worker: its runner, and how many jobs it can claim."""

from __future__ import annotations

from dataclasses import dataclass

from rqjobs.policies import QueuePolicy
from rqjobs.worker.claimed_job import ClaimedJob
from rqjobs.worker.runners.admission import Admission
from rqjobs.worker.runners.base import Runner

BATCH_SIZE = 200
"""Jobs that one request claims from a queue, or writes back, at most: about 3 ms of Redis. Four times as many may be
claimed ahead of free slots, which run while the next request is in flight."""

MAX_BYTES = 32 * 2**20
"""Bytes of payload of one queue above which no more jobs are claimed. One request claims 4 MiB at most (reserve.lua),
or one job of up to 32 MiB, so a worker may hold this much and the requests in flight."""

PREFETCH_SECONDS = 0.05
"""Seconds of work that a busy queue claims beyond its slots, so that no slot is idle while a request is in flight."""


@dataclass
class QueueState:
    """A queue of this worker. Other threads than the loop's may only set :attr:`notified`."""

    policy: QueuePolicy
    runner: Runner
    admission: Admission | None = None
    """Checks jobs before they start, in a thread of its own, and passes them on to the runner."""
    in_use: int = 0
    """Jobs that are claimed, or requested, and have no outcome yet."""
    notified: bool = True
    """Its lanes may have changed since the last request."""
    may_have_jobs: bool = True
    """Jobs may wait in its lanes: the last response had as many as were requested."""
    rate: float = 0.0
    """Jobs settled per second, in the last measure interval."""
    settled: int = 0
    """Jobs settled since the last measurement."""
    bytes: int = 0
    """Bytes of the payloads of the jobs that are claimed and have no outcome yet."""

    @property
    def empty(self) -> bool:
        """Whether no jobs wait in its lanes, as far as is known."""
        return not self.may_have_jobs and not self.notified

    def claimable(self, limit: int) -> int:
        """How many jobs it can claim now, at most ``limit``; 0 as well if no jobs wait."""
        if self.empty or self.bytes >= MAX_BYTES:
            return 0
        ahead = int(self.rate * PREFETCH_SECONDS) if self.policy.runs_in == "thread" else 0
        return min(self.runner.room() + min(ahead, 4 * BATCH_SIZE) - self.in_use, BATCH_SIZE, limit)

    def requested(self, count: int) -> None:
        """Records that a request for ``count`` jobs is sent."""
        self.notified = False  # before the request is sent: a later notification is not covered by its response
        self.may_have_jobs = True
        self.in_use += count

    def claimed(self, jobs: list[ClaimedJob], requested: int) -> None:
        """Hands on ``jobs``, the response to a request for ``requested`` jobs."""
        self.in_use += len(jobs) - requested
        self.may_have_jobs = len(jobs) >= requested
        if jobs:
            self.bytes += sum([len(job.data) for job in jobs])
            (self.admission or self.runner).submit(jobs)

    def close(self) -> None:
        """Ends its threads."""
        if self.admission is not None:
            self.admission.close()
        self.runner.close()
