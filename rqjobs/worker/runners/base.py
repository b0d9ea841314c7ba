"""What every runner shares: its interface to the engine, and the pipeline that runs one job.

The pipeline: decode (:meth:`ClaimedJob.prepare`), enter the time limit, call the function, translate the exception
(:func:`raised`), record. A runner only decides where the function is called.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Protocol

from rqjobs.attempt import Attempt
from rqjobs.config.logs import event
from rqjobs.jobs import JobModel
from rqjobs.worker.claimed_job import ClaimedJob, NeedsRQCompat
from rqjobs.worker.failures import Failure, read_failure
from rqjobs.worker.outcomes import LeftToLease, Outcome, WrittenByRQ
from rqjobs.worker.runners.time_limits import Slot, StopRequested, TimeLimit, TimeLimitExceeded, TimeLimitThread


class Engine(Protocol):
    """What the runners call of the engine."""

    time_limits: TimeLimitThread

    def settled(self, job: ClaimedJob) -> None:
        """Has the outcome of the job written."""

    def failed(self, job: ClaimedJob, error: BaseException) -> None:
        """Has the exception handlers called with ``error``."""

    def end_trial(self, job: ClaimedJob) -> None:
        """Ends the hold of a queue whose trial the job was."""

    def run_rq_compat(self, job: ClaimedJob) -> None:
        """Runs the job by RQ's own methods."""

    def run_only(self, queue: str, jobs: Sequence[ClaimedJob]) -> None:
        """Writes to Redis that, of this queue's jobs whose workers have died, these alone run now."""


class Runner:
    """Runs the jobs of one queue, and keeps those that wait for it."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        """How many jobs it may hold at once."""
        self._jobs: deque[ClaimedJob] = deque()

    def room(self) -> int:
        """How many jobs it may hold now: fewer while threads are stuck."""
        return self.capacity

    def submit(self, jobs: Sequence[ClaimedJob]) -> None:
        """Accepts jobs. Never blocks."""
        raise NotImplementedError

    def waiting(self) -> list[ClaimedJob]:
        """Removes and returns the jobs that it has not started, in order."""
        found = []
        while True:
            try:
                found.append(self._jobs.popleft())
            except IndexError:
                return found

    def check_waiting(self) -> bool:
        """Starts threads for waiting jobs; called every 20 ms. Returns whether to call it again soon."""
        return False

    def stop(self) -> None:
        """Ends what runs in it, if it can: a thread cannot be ended from outside."""

    def stop_job(self, job: ClaimedJob) -> bool:
        """Ends this one job for good.

        Returns:
            Whether its outcome comes from the run itself, which cleans up first; otherwise it is stopped at once.
        """
        raise NotImplementedError

    def replace(self, job: ClaimedJob) -> None:
        """Replaces the thread that runs this job, which was abandoned."""

    def lease_lost(self, job: ClaimedJob) -> bool:
        """Ends a job whose lease another worker has: its outcome would be refused.

        Returns:
            Whether it is over here: it had not begun, or could be ended.
        """
        try:
            self._jobs.remove(job)  # atomic: jobs are compared by their identity
        except ValueError:
            return False
        return True

    def close(self) -> None:
        """Ends its idle threads; the engine has ended."""


def run_in_slot(slot: Slot, job: ClaimedJob, processor: Callable[[JobModel, Attempt], Any], engine: Engine) -> Outcome:
    """Runs one job in this thread, with its time limit, and returns its outcome."""
    started = time.time()
    try:
        try:
            slot.enter([job], job.timeout)
            model, attempt = job.prepare()
            result = processor(model, attempt)
        finally:
            slot.leave()
        return job.done(result, started)
    except NeedsRQCompat:
        return run_rq_compat(slot, job, engine, started)
    except BaseException as error:  # noqa: BLE001  # whatever a processor raises, SystemExit too, is its failure
        return raised(job, error, started, engine, stopped=slot.stopped)


def prepare_each(
    jobs: Sequence[ClaimedJob], run_elsewhere: Callable[[ClaimedJob, Exception], None]
) -> list[tuple[ClaimedJob, JobModel, Attempt]]:
    """Decodes several jobs; ``run_elsewhere`` gets those that cannot be decoded, with the reason."""
    found: list[tuple[ClaimedJob, JobModel, Attempt]] = []
    for job in jobs:
        try:
            found.append((job, *job.prepare()))
        except Exception as error:  # noqa: BLE001  # it is this job's failure, not that of the others
            run_elsewhere(job, error)
    return found


def raised(job: ClaimedJob, error: BaseException, started: float, engine: Engine, *, stopped: bool = False) -> Outcome:
    """Returns the outcome of a run that raised ``error``, and has the exception handlers called.

    Args:
        job: the job.
        error: the exception; a time limit's becomes TimeLimitExceeded.
        started: when the run began, Unix time.
        engine: for the exception handlers.
        stopped: the run was stopped by command: a time limit's exception comes from there.
    """
    if isinstance(error, TimeLimit):
        if stopped or isinstance(error, StopRequested):
            return job.stopped(started)
        error = TimeLimitExceeded(timedelta(seconds=job.timeout))
    return failed(job, read_failure(error, job.policy), error, started, engine)


def failed(job: ClaimedJob, failure: Failure, error: BaseException, started: float, engine: Engine) -> Outcome:
    """Returns the outcome of a failed run; the exception handlers get ``error``, unless a dependency is away."""
    if failure.unavailable is None:
        engine.failed(job, error)
    return job.failed(failure, started)


def run_rq_compat(
    slot: Slot, job: ClaimedJob, engine: Engine, started: float, ends: Callable[[ClaimedJob], None] | None = None
) -> Outcome:
    """Runs one job by RQ's own methods, which write its outcome themselves.

    With ``ends`` the job has run, in a thread that was abandoned: only its end is written.

    Raises:
        SystemExit: this thread was abandoned meanwhile, and ends here.
    """
    try:
        try:
            slot.enter_rq(job, ran=ends is not None)
            if job.settled:  # stopped or released before it began
                return LeftToLease(started=started, ended=time.time())
            (ends or engine.run_rq_compat)(job)
        finally:
            slot.leave()
    except BaseException as error:  # Redis was away: the lease expires, and another worker gets the job
        if slot.abandoned:
            raise SystemExit from None
        why = f"{type(error).__name__}: {error}"
        event(logging.ERROR, "job left to its lease", id=job.job_id, queue=job.lane, error=why)
        logging.getLogger("rqjobs").debug("its error", exc_info=True)
        return LeftToLease(started=started, ended=time.time())
    return WrittenByRQ(started=started, ended=time.time())


def run_rq_compat_here(
    job: ClaimedJob, engine: Engine, started: float, ends: Callable[[ClaimedJob], None] | None = None
) -> Outcome:
    """As :func:`run_rq_compat`, in a thread that has no slot."""
    slot = Slot()
    engine.time_limits.watch(slot)
    try:
        return run_rq_compat(slot, job, engine, started, ends)
    finally:
        engine.time_limits.forget(slot)
