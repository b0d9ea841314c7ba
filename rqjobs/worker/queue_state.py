"""One queue as the engine's loop sees it: who runs its jobs, and how many of them it can take."""

from __future__ import annotations

from dataclasses import dataclass

from rqjobs.policies import QueuePolicy
from rqjobs.worker.claimed_job import Taken
from rqjobs.worker.runners.admission import Admission
from rqjobs.worker.runners.threads import Runner

BATCH = 200
"""The most jobs that one call to Redis takes from a queue, or writes back: about 3 ms of Redis. Four times as many may
be reserved ahead, for these run while Redis is asked for the next ones."""

MOST_BYTES = 32 * 2**20
"""Bytes of payload that a worker holds of one queue. One call to Redis takes 4 MiB at most (reserve.lua), or one job of
up to 32 MiB, so it may be over this by what is under way."""

AHEAD = 0.05
"""Seconds of work that a busy queue has reserved beyond its slots, so that no slot waits for Redis."""


@dataclass
class Line:
    """A queue of this worker. Only :attr:`called` is for other threads than the loop's."""

    policy: QueuePolicy
    runner: Runner
    admission: Admission | None = None
    """Looks at jobs before they start, in a thread of its own, and hands them to the runner."""
    held: int = 0
    """Jobs reserved, or asked for, and not yet settled."""
    called: bool = True
    """Somebody said that there may be jobs in its lanes."""
    hungry: bool = True
    """There may be jobs in its lanes."""
    rate: float = 0.0
    """Jobs settled a second, lately."""
    settled: int = 0
    bytes: int = 0
    """Of the payloads of the jobs that are reserved and not yet settled."""

    @property
    def empty(self) -> bool:
        """Whether nothing waits in its lanes, as far as is known."""
        return not self.hungry and not self.called

    def wants(self, most: int) -> int:
        """How many jobs it can take now, ``most`` or fewer; 0 as well if there is none to take."""
        if self.empty or self.bytes >= MOST_BYTES:
            return 0
        ahead = int(self.rate * AHEAD) if self.policy.runs_in == "thread" else 0
        return min(self.runner.room() + min(ahead, 4 * BATCH) - self.held, BATCH, most)

    def ask(self, budget: int) -> None:
        """Redis is asked for so many jobs."""
        self.called = False  # before the question: what is said from now on is not in its answer
        self.hungry = True
        self.held += budget

    def take(self, jobs: list[Taken], asked: int) -> None:
        """Redis has answered: ``jobs``, of ``asked`` for."""
        self.held += len(jobs) - asked
        self.hungry = len(jobs) >= asked
        if jobs:
            self.bytes += sum([len(job.data) for job in jobs])
            (self.admission or self.runner).submit(jobs)

    def close(self) -> None:
        """Ends its threads."""
        if self.admission is not None:
            self.admission.close()
        self.runner.close()
