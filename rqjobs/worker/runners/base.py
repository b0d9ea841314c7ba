"""The base of all runners: their interface to the engine, and the pipeline that runs one job.

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
    """The methods of the engine that runners call."""

    time_limits: TimeLimitThread
    wants_starts: bool
    """Whether :meth:`started` must be called: a hook is registered for it."""

    def started(self, jobs: Sequence[ClaimedJob]) -> None:
        """Calls the hooks for jobs whose runs begin."""

    def settled(self, job: ClaimedJob) -> None:
        """Passes on a job with an outcome, which is then written."""

    def failed(self, job: ClaimedJob, error: BaseException) -> None:
        """Calls the exception handlers with ``error``, in another thread."""

    def end_trial(self, job: ClaimedJob) -> None:
        """Ends the hold of the queue whose trial was ``job``."""

    def run_rq_compat(self, job: ClaimedJob) -> None:
        """Runs the job by RQ's own methods."""

    def run_only(self, queue: str, jobs: Sequence[ClaimedJob]) -> None:
        """Records in Redis that, of this queue's jobs whose workers have died, only ``jobs`` run now."""


class Runner:
    """Runs the jobs of one queue, and keeps those that wait for a free slot."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        """The most jobs that it may hold."""
        self._jobs: deque[ClaimedJob] = deque()

    def room(self) -> int:
        """The number of jobs it may hold now; lower while threads are stuck."""
        return self.capacity

    def submit(self, jobs: Sequence[ClaimedJob]) -> None:
        """Accepts jobs. Never blocks."""
        raise NotImplementedError

    def waiting(self) -> list[ClaimedJob]:
        """Removes and returns the jobs that have not begun, in order."""
        found = []
        while True:
            try:
                found.append(self._jobs.popleft())
            except IndexError:
                return found

    def check_waiting(self) -> bool:
        """Starts threads for waiting jobs; called every 20 ms. Returns whether it must be called again soon."""
        return False

    def stop(self) -> None:
        """Ends the running jobs, if it can: threads cannot be ended from outside."""

    def stop_job(self, job: ClaimedJob) -> bool:
        """Ends this job for good.

        Returns:
            Whether the run itself sets the outcome, after its cleanup; otherwise the caller sets it at once.
        """
        raise NotImplementedError

    def replace(self, job: ClaimedJob) -> None:
        """Replaces the thread that runs this job, which was abandoned."""

    def lease_lost(self, job: ClaimedJob) -> bool:
        """Ends a job whose lease another worker has; its outcome would be refused.

        Returns:
            Whether it has ended: it had not begun, or could be ended.
        """
        try:
            self._jobs.remove(job)  # atomic: jobs are compared by their identity
        except ValueError:
            return False
        return True

    def close(self) -> None:
        """Ends the idle threads after the engine has ended."""


def watched(slot: Slot, engine: Engine, serve: Callable[[Slot], None], came_back: Callable[[], None]) -> None:
    """Runs ``serve`` in this thread with time limits; calls ``came_back`` if the thread was abandoned."""
    engine.time_limits.watch(slot)
    try:
        serve(slot)
    finally:
        engine.time_limits.forget(slot)
        if slot.abandoned:
            came_back()


def run_in_slot(slot: Slot, job: ClaimedJob, processor: Callable[[JobModel, Attempt], Any], engine: Engine) -> Outcome:
    """Runs one job in this thread, with its time limit, and returns its outcome."""
    started = time.time()
    try:
        try:
            slot.enter([job], job.timeout)
            model, attempt = job.prepare()
            if engine.wants_starts:
                engine.started((job,))
            result = processor(model, attempt)
        finally:
            slot.leave()
        return job.done(result, started)
    except NeedsRQCompat:
        return run_rq_compat(slot, job, engine, started)
    except BaseException as error:  # noqa: BLE001  # any exception of a processor, also SystemExit, is its failure
        return raised(job, error, started, engine, stopped=slot.stopped)


def prepare_each(
    jobs: Sequence[ClaimedJob], run_elsewhere: Callable[[ClaimedJob, Exception], None]
) -> list[tuple[ClaimedJob, JobModel, Attempt]]:
    """Decodes several jobs; those that cannot be decoded are passed to ``run_elsewhere``, with the error."""
    found: list[tuple[ClaimedJob, JobModel, Attempt]] = []
    for job in jobs:
        try:
            found.append((job, *job.prepare()))
        except Exception as error:  # noqa: BLE001  # it is this job's failure, not that of the others
            run_elsewhere(job, error)
    return found


def raised(job: ClaimedJob, error: BaseException, started: float, engine: Engine, *, stopped: bool = False) -> Outcome:
    """Returns the outcome of a run that raised ``error``, and calls the exception handlers.

    Args:
        job: the job.
        error: the exception; that of a time limit becomes TimeLimitExceeded.
        started: the start of the run, in Unix time.
        engine: calls the exception handlers.
        stopped: a command has stopped the run, and caused the exception of a time limit.
    """
    if isinstance(error, TimeLimit):
        if stopped or isinstance(error, StopRequested):
            return job.stopped(started)
        error = TimeLimitExceeded(timedelta(seconds=job.timeout))
    return failed(job, read_failure(error, job.policy), error, started, engine)


def failed(job: ClaimedJob, failure: Failure, error: BaseException, started: float, engine: Engine) -> Outcome:
    """Returns the outcome of a failed run; calls the exception handlers unless a dependency is unavailable."""
    if failure.unavailable is None:
        engine.failed(job, error)
    return job.failed(failure, started)


def run_rq_compat(
    slot: Slot, job: ClaimedJob, engine: Engine, started: float, ends: Callable[[ClaimedJob], None] | None = None
) -> Outcome:
    """Runs one job by RQ's own methods, which write its outcome themselves.

    With ``ends`` the job has run already, in a thread that was abandoned: only its outcome is written.

    Raises:
        SystemExit: this thread was abandoned, and ends here.
    """
    try:
        try:
            slot.enter_rq(job, ran=ends is not None)
            if job.settled:  # stopped or released before it began
                return LeftToLease(started=started, ended=time.time())
            (ends or engine.run_rq_compat)(job)
        finally:
            slot.leave()
    except BaseException as error:  # Redis did not answer: the lease expires, and another worker gets the job
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
    """Like :func:`run_rq_compat`, in a thread that has no slot."""
    slot = Slot()
    engine.time_limits.watch(slot)
    try:
        return run_rq_compat(slot, job, engine, started, ends)
    finally:
        slot.place.end()
        engine.time_limits.forget(slot)
