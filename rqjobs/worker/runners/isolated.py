"""Runs jobs that may have killed their workers, each in its own process, so that no other job is affected."""

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
"""The number of such jobs of a queue that run at once."""

RETRY_AFTER = 0.1
"""Seconds for which surplus jobs are held: a killed worker may leave hundreds, and only a few run at once."""


class SuspectRunner(ProcessRunner):
    """Runs suspected jobs in processes. If a process dies under its job, the job is dead."""

    def died(self, job: ClaimedJob, child: Child | None, started: float) -> Outcome:
        """Returns the outcome of a job whose process has died: dead, even if it has attempts left."""
        text = f"{death(child)}; workers died while they ran this job before: it may be the cause"
        return job.failed(Failure(text, permanent=child is not None and child.ready), started)


class IsolatedRunner(Runner):
    """Wraps the runner of a queue; runs isolated jobs separately, and passes all others to the wrapped runner.

    Isolated jobs are those that another death of a worker would make dead. A dying worker takes all its claimed jobs
    with it. They go back together, so the next worker claims them together: one job that kills its workers would make
    all of them dead.
    """

    def __init__(self, runner: Runner, policy: QueuePolicy, engine: Engine) -> None:
        super().__init__(runner.capacity)
        self._runner = runner
        self._engine = engine
        self._suspects = SuspectRunner(policy, SLOTS, engine)
        self._most = max(SLOTS, runner.capacity // 4)  # most slots are for the other jobs

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
        """The number of jobs that the wrapped runner may hold now."""
        return self._runner.room()

    def check_waiting(self) -> bool:
        """Starts threads for waiting jobs in the wrapped runner."""
        return self._runner.check_waiting()

    def stop(self) -> None:
        """Ends the running jobs that can be ended."""
        self._runner.stop()
        self._suspects.stop()

    def stop_job(self, job: ClaimedJob) -> bool:
        """Ends this job for good."""
        return self._of(job).stop_job(job)

    def replace(self, job: ClaimedJob) -> None:
        """Replaces the abandoned thread that runs this job."""
        self._of(job).replace(job)

    def lease_lost(self, job: ClaimedJob) -> bool:
        """Ends a job whose lease another worker has."""
        return self._of(job).lease_lost(job)

    def close(self) -> None:
        """Ends the idle threads and processes."""
        self._runner.close()
        self._suspects.close()
