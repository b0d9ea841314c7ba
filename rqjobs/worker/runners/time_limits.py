"""Time limits for threads: one thread watches all others."""

from __future__ import annotations

import ctypes
import logging
import threading
import time
from collections.abc import Callable

from rq.timeouts import JobTimeoutException

from rqjobs.errors import JobTimeout
from rqjobs.worker.claimed_job import ClaimedJob
from rqjobs.worker.running_jobs import free_place, place

PERIOD = 0.1
"""Seconds between two checks of all time limits: a limit is kept to a tenth of a second."""

PATIENCE = 1.0
"""Seconds that a thread past its limit has to leave its job, before it is abandoned: time for ``finally`` blocks. A
thread inside a call of C (a sleep, a socket, a query) notices nothing before that call ends, whatever the patience."""

STOP_PATIENCE = 0.2
"""The same for a job that was stopped by command: RQ kills such a job, so no job relies on cleaning up."""


class TimeLimit(BaseException):
    """Raised inside a thread whose job ran past its limit; ``except Exception`` lets it by."""


class StopRequested(TimeLimit):
    """The same by command: the job is not to run again."""


class TimeLimitExceeded(JobTimeout, JobTimeoutException):
    """The error of a run past its limit, for RQ's tools as well."""


class Abandoned(BaseException):
    """Raised in a thread that was abandoned, when it comes back: its job has its outcome from elsewhere."""


def rq_time_limit(seconds: float) -> type[JobTimeoutException]:
    """RQ's own exception with RQ's own message: what is raised in another thread is a class, without arguments."""

    def __init__(self: JobTimeoutException) -> None:  # noqa: N807
        Exception.__init__(self, f"Task exceeded maximum timeout value ({seconds:g} seconds)")

    members = {"__init__": __init__, "__module__": JobTimeoutException.__module__}
    return type(JobTimeoutException.__name__, (JobTimeoutException,), members)


_here = threading.local()


def slot_here() -> Slot | None:
    """The slot of this thread, while RQ's own methods run a job in it."""
    return getattr(_here, "slot", None)


class Slot:
    """What one thread runs, for its time limit. The lock makes sure that an interruption hits the right job."""

    __slots__ = (
        "abandoned", "calls", "deadline", "entered", "jobs", "lock", "place", "ran", "rq_limit", "rqs", "stopped",
        "thread_id", "warned",
    )  # fmt: skip

    def __init__(self, most: int = 1) -> None:
        """``most``: how many jobs it does at once."""
        self.lock = threading.Lock()
        self.place = place(most)
        self.thread_id = threading.get_ident()
        self.jobs: list[ClaimedJob] = []
        self.entered = 0.0
        self.deadline = 0.0
        self.warned = False
        self.abandoned = False
        """The thread is given up: whatever it does from now on changes nothing."""
        self.stopped = False
        """The limit was set off by a command, not by the clock."""
        self.rqs = False
        """RQ's own methods run the job. They write its outcome, so they must not be interrupted while they do."""
        self.calls = 0
        """How many calls RQ's methods have made for this job: the first is the job's function, others are callbacks."""
        self.ran = False
        """The job's function ran in another thread, which was abandoned: this one writes its end."""
        self.rq_limit = 0.0
        """Inside RQ's methods: the limit of the job's function or callback that they call now, 0 between two calls."""

    def enter(self, jobs: list[ClaimedJob], limit: float) -> None:
        """The thread begins ``jobs``; ``limit`` in seconds, none if not above zero."""
        self.place.begin(jobs[0].execution if len(jobs) == 1 else "".join([job.execution for job in jobs]))
        with self.lock:
            self.jobs, self.warned, self.stopped, self.rqs = jobs, False, False, False
            self.entered = time.monotonic()
            self.deadline = self.entered + limit if limit > 0 else float("inf")

    @property
    def began(self) -> float:
        """When its jobs began, ``time.time()``."""
        return time.time() - (time.monotonic() - self.entered)

    def enter_rq(self, job: ClaimedJob, *, ran: bool = False) -> None:
        """RQ's own methods begin with ``job``: only what they call (:meth:`enter_call`) is limited.

        ``ran``: its function has run, or was abandoned; only callbacks follow.
        """
        self.enter([job], 0)
        self.rqs, self.ran, self.calls, self.rq_limit = True, ran, int(ran), 0.0
        _here.slot = self

    def enter_call(self, limit: float) -> None:
        """RQ's methods call the job's function, or a callback.

        Raises:
            StopRequested: the job was stopped before its function was called.
        """
        with self.lock:
            if self.stopped and not self.calls:
                raise StopRequested
            self.calls += 1
            self.warned = False
            self.rq_limit = limit or -1.0
            self.deadline = time.monotonic() + limit if limit > 0 else float("inf")

    def leave_call(self) -> None:
        """The call has ended, so no interruption comes any more.

        Raises:
            Abandoned: it took too long, and the job has its outcome from elsewhere.
        """
        self._calm(over=False)
        if self.abandoned:
            raise Abandoned

    def leave(self) -> None:
        """The thread has left its jobs; no interruption comes any more."""
        self._calm(over=True)
        _here.slot = None

    def _calm(self, *, over: bool) -> None:
        while True:
            try:
                with self.lock:
                    if over:
                        self.jobs = []
                    self.deadline, self.rq_limit = float("inf"), 0.0
                    if self.warned:
                        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread_id), None)
                        self.warned = False
            except (TimeLimit, JobTimeoutException):  # it came just now
                continue
            return

    def interrupt(self, *, by_command: bool = False) -> None:
        """Raises the limit's exception in the thread, as soon as it runs Python code; with the lock held."""
        why: type[BaseException] = StopRequested if by_command else TimeLimit
        if self.rqs and not by_command:
            why = rq_time_limit(self.rq_limit)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread_id), ctypes.py_object(why))
        self.warned = True


class TimeLimitThread:
    """Interrupts jobs that run past their time limit, and has threads that do not react replaced."""

    def __init__(self, abandon: Callable[[Slot, list[ClaimedJob]], None]) -> None:
        self._slots: set[Slot] = set()
        self._abandon = abandon
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rqjobs-time-limits", daemon=True)

    def start(self) -> None:
        """Starts watching."""
        self._thread.start()

    def stop(self) -> None:
        """Stops watching."""
        self._stopping.set()

    def watch(self, slot: Slot) -> None:
        """Watches one more thread."""
        self._slots.add(slot)

    def forget(self, slot: Slot) -> None:
        """Watches it no more."""
        self._slots.discard(slot)
        if not slot.abandoned:
            free_place(slot.place)

    def interrupt(self, job: ClaimedJob) -> bool:
        """Interrupts the thread that runs this job alone, because of a command.

        Returns:
            Whether the job's outcome will come from there: RQ's own methods run it, and call its callbacks.
        """
        for slot in list(self._slots):
            with slot.lock:
                if len(slot.jobs) == 1 and slot.jobs[0] is job:
                    slot.stopped = True
                    # RQ's methods find out before they call the function; its callbacks are not what is stopped.
                    if not slot.rqs or (slot.rq_limit and slot.calls == 1):
                        slot.interrupt(by_command=True)
                        slot.deadline = time.monotonic()  # from now on its patience counts
                    return slot.rqs
        return False

    def began(self, job: ClaimedJob) -> float:
        """When the run of this job began, ``time.time()``; now if it has not."""
        return next((slot.began for slot in list(self._slots) if job in slot.jobs), time.time())

    def _run(self) -> None:
        while not self._stopping.wait(PERIOD):
            now = time.monotonic()
            for slot in list(self._slots):
                if slot.deadline < now:
                    try:
                        self._enforce(slot, now)
                    except Exception:  # the others' limits must hold all the same
                        logging.getLogger("rqjobs").exception("a time limit could not be kept")

    def _enforce(self, slot: Slot, now: float) -> None:
        with slot.lock:
            jobs = slot.jobs
            if not jobs or slot.deadline >= now:
                return
            if not slot.warned:
                slot.interrupt()
                return
            if now < slot.deadline + (STOP_PATIENCE if slot.stopped else PATIENCE):
                return
            slot.abandoned = True
        self.forget(slot)
        self._abandon(slot, jobs)
