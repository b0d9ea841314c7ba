"""Jobs in threads: as many threads a queue as it has slots, started when they are first needed."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from queue import SimpleQueue
from typing import Any, Protocol

from rqjobs.attempt import Attempt
from rqjobs.broker.tracing import traced
from rqjobs.config.logs import event
from rqjobs.jobs import JobModel
from rqjobs.policies import QueuePolicy, load
from rqjobs.worker.claimed_job import ClaimedJob, NeedsRQCompat, Outcome
from rqjobs.worker.runners.time_limits import Slot, TimeLimit, TimeLimitExceeded, TimeLimitThread

QUICK = 0.001
"""Seconds: while the jobs of a queue take less, few threads run them, for switching would cost more than the jobs."""


class Engine(Protocol):
    """What the runners need of the engine."""

    time_limits: TimeLimitThread

    def settled(self, job: ClaimedJob) -> None:
        """The job has its outcome."""

    def failed(self, job: ClaimedJob, error: BaseException) -> None:
        """The job's run has raised this."""

    def end_trial(self, job: ClaimedJob) -> None:
        """The job was the trial of a held queue, and has found its dependency."""

    def run_rq_compat(self, job: ClaimedJob) -> None:
        """Runs the job by RQ's own methods."""

    def run_only(self, queue: str, jobs: Sequence[ClaimedJob]) -> None:
        """Lets Redis know: of this queue's jobs that have had a worker die under them only these run now."""


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
        """Takes jobs over. Never blocks."""
        raise NotImplementedError

    def waiting(self) -> list[ClaimedJob]:
        """Gives back the jobs that it has not started, in order."""
        found = []
        while True:
            try:
                found.append(self._jobs.popleft())
            except IndexError:
                return found

    def check_waiting(self) -> bool:
        """Called now and then: sees to it that waiting jobs are begun. Whether to come back soon."""
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
        """The thread that runs this job was given up."""

    def lease_lost(self, job: ClaimedJob) -> bool:
        """Another worker has this job now: its outcome will be refused.

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


class ThreadRunner(Runner):
    """A pool of threads that grows up to the queue's slots.

    A thread that finds more work wakes the next one, so each job that blocks sets another thread free at once.
    Where jobs are quick it does not, for switching costs more than they do; :meth:`check_waiting` notices when one is
    not quick.
    """

    def __init__(self, policy: QueuePolicy, slots: int, engine: Engine) -> None:
        super().__init__(slots)
        self._policy = policy
        self._engine = engine
        self._slots = slots
        self._tokens: SimpleQueue[None] = SimpleQueue()
        self._waking = self._closed = False
        self._threads = self._idle = 0
        self._stuck = 0  # threads that were abandoned and have not come back
        self._begun = self._seen = 0
        self._took = 1.0  # seconds a job, lately; both are written by many threads, and need not be exact
        self._lock = threading.Lock()
        self._processor: Callable[[JobModel, Attempt], Any] = traced(load(policy.processor))

    def submit(self, jobs: Sequence[ClaimedJob]) -> None:
        """Takes jobs over."""
        self._jobs.extend(jobs)
        if not self._waking:
            self._wake()

    def check_waiting(self) -> bool:
        """If none was begun since the last time, the jobs are not quick any more: threads wake each other again."""
        if not self._jobs:
            return False
        if self._begun == self._seen:
            self._took = 1.0
            if not self._waking:
                self._wake()
        self._seen = self._begun
        return self._idle > 0 or self._threads < self._slots

    def stop_job(self, job: ClaimedJob) -> bool:
        """Interrupts the thread that runs it."""
        return self._engine.time_limits.interrupt(job)

    def room(self) -> int:
        """As many threads as there are slots may be stuck and replaced; what is stuck beyond them takes slots away."""
        return max(0, self.capacity - max(0, self._stuck - self._slots))

    def close(self) -> None:
        """Ends the idle threads."""
        self._closed = True
        for _thread in range(self._slots):
            self._tokens.put(None)

    def replace(self, job: ClaimedJob) -> None:  # noqa: ARG002  # a thread is as good as another
        """A thread was given up: another may take its place, unless so many are stuck as there are slots."""
        with self._lock:
            self._stuck += 1
            replaced = self._stuck <= self._slots
            self._threads -= replaced
        if replaced:
            self._wake()
            return
        event(logging.ERROR, "too many threads are stuck: a slot is closed", queue=self._policy.name, stuck=self._stuck)
        if self.room() == 0:
            for waiting in self.waiting():  # another worker may have a thread for them
                if waiting.settle(Outcome("back")):
                    self._engine.settled(waiting)

    def _came_back(self) -> None:
        """A thread that was given up has ended."""
        with self._lock:
            self._stuck -= 1
            opened = self._stuck >= self._slots
            self._threads -= opened
        if opened:
            self._wake()

    def _wake(self) -> None:
        self._waking = True
        if self._idle == 0 and self._threads < self._slots:
            with self._lock:
                if self._threads >= self._slots:
                    return
                self._threads += 1
                number = self._threads
            name = f"rqjobs-{self._policy.name}-{number}"
            threading.Thread(target=self._work, name=name, daemon=True).start()
        else:
            self._tokens.put(None)

    def _work(self) -> None:
        slot = Slot()
        self._engine.time_limits.watch(slot)
        try:
            self._serve(slot)
        finally:
            self._engine.time_limits.forget(slot)
            if slot.abandoned:
                self._came_back()

    def _serve(self, slot: Slot) -> None:
        self._waking = False
        while not slot.abandoned and not self._closed:
            try:
                job = self._jobs.popleft()
            except IndexError:
                with self._lock:
                    self._idle += 1
                self._tokens.get()
                with self._lock:
                    self._idle -= 1
                self._waking = False
                continue
            self._begun += 1
            if self._took > QUICK and self._jobs and not self._waking:
                self._wake()
            self._run(slot, job)

    def _run(self, slot: Slot, job: ClaimedJob) -> None:
        if job.settled:  # stopped or handed back before it began
            return
        outcome = run_in_slot(slot, job, self._processor, self._engine)
        self._took += (outcome.ended - outcome.started - self._took) / 10
        if not slot.abandoned and job.settle(outcome):
            self._engine.settled(job)


def run_in_slot(slot: Slot, job: ClaimedJob, processor: Callable[[JobModel, Attempt], Any], engine: Engine) -> Outcome:
    """Runs one job in this thread, with its time limit, and says what became of it."""
    started = time.time()
    try:
        try:
            slot.enter([job], job.timeout)
            if job.rq_compat:
                raise NeedsRQCompat
            model, attempt = job.prepare()
            result = processor(model, attempt)
        finally:
            slot.leave()
        return job.done(result, started)
    except NeedsRQCompat:
        return run_rq_compat(slot, job, engine, started)
    except TimeLimit:
        return timed_out(job, started, engine, stopped=slot.stopped)
    except BaseException as error:  # noqa: BLE001  # whatever a processor raises, SystemExit too, is its failure
        return failed(job, error, started, engine)


def run_rq_compat(
    slot: Slot, job: ClaimedJob, engine: Engine, started: float, ends: Callable[[ClaimedJob], None] | None = None
) -> Outcome:
    """Runs one job by RQ's own methods, which write its outcome themselves.

    With ``ends`` the job has run, in a thread that was abandoned: only its end is to be written.

    Raises:
        SystemExit: this thread was abandoned meanwhile, and ends here.
    """
    try:
        try:
            slot.enter_rq(job, ran=ends is not None)
            if job.settled:  # stopped or handed back before it began
                return Outcome("left", started=started, ended=time.time())
            (ends or engine.run_rq_compat)(job)
        finally:
            slot.leave()
    except BaseException as error:  # Redis was away: the lease runs out, another worker takes the job
        if slot.abandoned:
            raise SystemExit from None
        why = f"{type(error).__name__}: {error}"
        event(logging.ERROR, "job left to its lease", id=job.job_id, queue=job.lane, error=why)
        logging.getLogger("rqjobs").debug("its error", exc_info=True)
        return Outcome("left", started=started, ended=time.time())
    return Outcome("written", started=started, ended=time.time())


def run_rq_compat_here(
    job: ClaimedJob, engine: Engine, started: float, ends: Callable[[ClaimedJob], None] | None = None
) -> Outcome:
    """The same in a thread that runs this one job only, or other things as well."""
    slot = Slot()
    engine.time_limits.watch(slot)
    try:
        return run_rq_compat(slot, job, engine, started, ends)
    finally:
        engine.time_limits.forget(slot)


def failed(job: ClaimedJob, error: BaseException, started: float, engine: Engine) -> Outcome:
    """The outcome of a run that raised ``error``."""
    outcome = job.failed(error, started)
    if outcome.how != "away":  # what it needs is away: no failure of the job
        engine.failed(job, error)
    return outcome


def timed_out(job: ClaimedJob, started: float, engine: Engine, *, stopped: bool = False) -> Outcome:
    """The outcome of a run past its time limit, or of one that was told to stop."""
    if stopped:
        return job.stopped(started)
    return failed(job, TimeLimitExceeded(timedelta(seconds=job.timeout)), started, engine)
