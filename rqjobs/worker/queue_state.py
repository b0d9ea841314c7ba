"""The state of one queue in this worker: its runner, and the number of jobs it can claim."""

from __future__ import annotations

from dataclasses import dataclass

from rqjobs.policies import QueuePolicy
from rqjobs.worker.claimed_job import ClaimedJob
from rqjobs.worker.runners.admission import Admission
from rqjobs.worker.runners.base import Runner

BATCH_SIZE = 200
"""The most jobs that one request claims from a queue, or writes back: about 3 ms of Redis' time. Up to four times as
many are claimed beyond the free slots, and run while the next request is in flight."""

MAX_BYTES = 32 * 2**20
"""The bytes of claimed payload of one queue above which no more jobs are claimed. One request claims at most 4 MiB
(reserve.lua), or one job of up to 32 MiB, so a worker may hold this much plus the requests in flight."""

PREFETCH_SECONDS = 0.05
"""The seconds of work that a busy queue claims in advance, so that no slot is idle while a request is in flight."""


@dataclass
class QueueState:
    """A queue of this worker. Threads other than the loop's may only set :attr:`notified`."""

    policy: QueuePolicy
    runner: Runner
    admission: Admission | None = None
    """Checks jobs before they start, in its own thread, and passes them on to the runner."""
    in_use: int = 0
    """The number of jobs that are claimed or requested, and have no outcome yet."""
    notified: bool = True
    """Whether its lanes may have changed since the last request."""
    may_have_jobs: bool = True
    """Whether jobs may wait in its lanes: the last response had as many as were requested."""
    rate: float = 0.0
    """Outcomes per second, in the last measure interval."""
    settled: int = 0
    """Outcomes since the last measurement."""
    bytes: int = 0
    """The bytes of payload of the claimed jobs without an outcome."""

    @property
    def empty(self) -> bool:
        """Whether its lanes have no waiting jobs, as far as this worker has been notified."""
        return not self.may_have_jobs and not self.notified

    def claimable(self, limit: int) -> int:
        """Returns how many jobs it can claim now, at most ``limit``; 0 also if its lanes are empty."""
        if self.empty or self.bytes >= MAX_BYTES:
            return 0
        ahead = int(self.rate * PREFETCH_SECONDS) if self.policy.runs_in == "thread" else 0
        return min(self.runner.room() + min(ahead, 4 * BATCH_SIZE) - self.in_use, BATCH_SIZE, limit)

    def requested(self, count: int) -> None:
        """Records that a request for ``count`` jobs is about to be sent."""
        self.notified = False  # set before sending: the response does not include changes that are notified later
        self.may_have_jobs = True
        self.in_use += count

    def claimed(self, jobs: list[ClaimedJob], requested: int) -> None:
        """Passes ``jobs``, the response to a request for ``requested`` jobs, to the runner or the admission."""
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
