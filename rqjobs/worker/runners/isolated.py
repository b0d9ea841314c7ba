"""Jobs that may be what their workers died of: run in a process of their own, so that no other job dies with them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rqjobs.policies import QueuePolicy
from rqjobs.worker.claimed_job import ClaimedJob
from rqjobs.worker.failures import Failure
from rqjobs.worker.outcomes import Held, Outcome
from rqjobs.worker.runners.base import Engine, Runner
from rqjobs.worker.runners.processes import Child, ProcessRunner, death

SLOTS = 2
"""How many such jobs of a queue run at once."""

RETRY_AFTER = 0.1
"""Seconds after which those come back that find too many before them: a killed worker may have had hundreds."""


class SuspectRunner(ProcessRunner):
    """That a process dies under such a job too is the last proof."""

    def died(self, job: ClaimedJob, child: Child | None, started: float) -> Outcome:
        """Dead, whatever attempts are left."""
        text = f"{death(child)}; workers died while they ran this job before: it may be the cause"
        return job.failed(Failure(text, permanent=child is not None and child.ready), started)


class IsolatedRunner(Runner):
    """The runner of a queue, beside one for the jobs whose next death of a worker would be their last.

    A worker that dies takes all its claimed jobs down. They go back together, so the next worker claims them
    together: one job that kills would have all its neighbours counted dead with it.
    """

    def __init__(self, runner: Runner, policy: QueuePolicy, engine: Engine) -> None:
        super().__init__(runner.capacity)
        self._runner = runner
        self._engine = engine
        self._suspects = SuspectRunner(policy, SLOTS, engine)
        self._most = max(SLOTS, runner.capacity // 4)  # the slots are for the others

    def _of(self, job: ClaimedJob) -> Runner:
        return self._suspects if job.isolated else self._runner

    def submit(self, jobs: Sequence[ClaimedJob]) -> None:
        """Accepts jobs."""
        suspects = [job for job in jobs if job.isolated]
        if suspects:
            room = max(0, self._most - self._suspects.unfinished)
            self._suspects.submit(suspects[:room])
            for number, job in enumerate(suspects[room:]):
                wait = RETRY_AFTER * (1 + number // self._most)
                if job.settle(Held(wait, ended=time.time())):
                    self._engine.settled(job)
            jobs = [job for job in jobs if not job.isolated]
        if jobs:
            self._runner.submit(jobs)

    def waiting(self) -> list[ClaimedJob]:
        """Removes and returns the jobs that have not begun."""
        return self._runner.waiting() + self._suspects.waiting()

    def room(self) -> int:
        """The runner's."""
        return self._runner.room()

    def check_waiting(self) -> bool:
        """The runner's."""
        return self._runner.check_waiting()

    def stop(self) -> None:
        """Ends what can be ended."""
        self._runner.stop()
        self._suspects.stop()

    def stop_job(self, job: ClaimedJob) -> bool:
        """Ends this one job for good."""
        return self._of(job).stop_job(job)

    def replace(self, job: ClaimedJob) -> None:
        """The thread that runs this job was given up."""
        self._of(job).replace(job)

    def lease_lost(self, job: ClaimedJob) -> bool:
        """Another worker has this job now."""
        return self._of(job).lease_lost(job)

    def close(self) -> None:
        """Ends the idle threads and processes."""
        self._runner.close()
        self._suspects.close()
