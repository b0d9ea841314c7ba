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
"""Seconds between two checks of all time limits, so limits are exact to a tenth of a second."""

PATIENCE = 1.0
"""Seconds that a thread has after its limit before it is abandoned, for its ``finally`` blocks. A thread inside a C
function (a sleep, a socket, a query) gets the exception only when that function returns."""

STOP_PATIENCE = 0.2
"""The same for a job that a command has stopped. RQ kills such a job, so no job may rely on its cleanup."""


class TimeLimit(BaseException):
    """Raised inside a thread whose job has exceeded its limit; ``except Exception`` does not catch it."""


class StopRequested(TimeLimit):
    """Raised inside a thread whose job a command has stopped; the job does not run again."""


class TimeLimitExceeded(JobTimeout, JobTimeoutException):
    """The error of a run that has exceeded its limit; an instance of RQ's exception as well, for RQ's tools."""


class Abandoned(BaseException):
    """Raised in an abandoned thread when it continues, because another thread has written its job's outcome."""


def rq_time_limit(seconds: float) -> type[JobTimeoutException]:
    """Returns a subclass of RQ's exception with RQ's message: only a class can be raised in another thread."""

    def __init__(self: JobTimeoutException) -> None:  # noqa: N807
        Exception.__init__(self, f"Task exceeded maximum timeout value ({seconds:g} seconds)")

    members = {"__init__": __init__, "__module__": JobTimeoutException.__module__}
    return type(JobTimeoutException.__name__, (JobTimeoutException,), members)


_here = threading.local()


def slot_here() -> Slot | None:
    """Returns the slot of this thread while RQ's own methods run a job in it; otherwise None."""
    return getattr(_here, "slot", None)


class Slot:
    """The jobs that one thread runs, and their time limit. Its lock ensures that an interruption hits the right job."""

    __slots__ = (
        "abandoned", "calls", "deadline", "entered", "jobs", "lock", "place", "ran", "rq_limit", "rqs", "stopped",
        "thread_id", "warned",
    )  # fmt: skip

    def __init__(self, most: int = 1) -> None:
        """Makes the slot of this thread, for up to ``most`` jobs at once."""
        self.lock = threading.Lock()
        self.place = place(most)
        self.thread_id = threading.get_ident()
        self.jobs: list[ClaimedJob] = []
        self.entered = 0.0
        self.deadline = 0.0
        self.warned = False
        self.abandoned = False
        """Whether the thread is abandoned, so that its results are ignored."""
        self.stopped = False
        """Whether a command has interrupted the jobs, not the clock."""
        self.rqs = False
        """Whether RQ's own methods run the job. They write its outcome, during which they must not be interrupted."""
        self.calls = 0
        """The number of calls that RQ's methods have made: the first is the job's function, others are callbacks."""
        self.ran = False
        """Whether the job's function ran in another thread, which was abandoned, and this one writes the outcome."""
        self.rq_limit = 0.0
        """Inside RQ's methods: the limit of the function or callback that is called now; 0 between two calls."""

    def enter(self, jobs: list[ClaimedJob], limit: float) -> None:
        """Records that the thread begins ``jobs``; ``limit`` is in seconds, 0 or less for none."""
        self.place.begin(jobs)
        with self.lock:
            self.jobs, self.warned, self.stopped, self.rqs = jobs, False, False, False
            self.entered = time.monotonic()
            self.deadline = self.entered + limit if limit > 0 else float("inf")

    @property
    def began(self) -> float:
        """The start of its jobs, in Unix time."""
        return time.time() - (time.monotonic() - self.entered)

    def enter_rq(self, job: ClaimedJob, *, ran: bool = False) -> None:
        """Records that RQ's own methods begin with ``job``; limits apply only inside :meth:`enter_call`.

        ``ran``: its function has run, or was abandoned; only callbacks follow.
        """
        self.enter([job], 0)
        self.rqs, self.ran, self.calls, self.rq_limit = True, ran, int(ran), 0.0
        _here.slot = self

    def enter_call(self, limit: float) -> None:
        """Records that RQ's methods call the job's function, or a callback.

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
        """Records that the call has ended, after which no interruption is raised.

        Raises:
            Abandoned: it took too long, and another thread writes the job's outcome.
        """
        self._calm(over=False)
        if self.abandoned:
            raise Abandoned

    def leave(self) -> None:
        """Records that the thread has left its jobs, after which no interruption is raised."""
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
            except (TimeLimit, JobTimeoutException):  # raised just before this point
                continue
            return

    def interrupt(self, *, by_command: bool = False) -> None:
        """Raises the limit's exception in the thread as soon as it runs Python code. The caller holds the lock."""
        why: type[BaseException] = StopRequested if by_command else TimeLimit
        if self.rqs and not by_command:
            why = rq_time_limit(self.rq_limit)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread_id), ctypes.py_object(why))
        self.warned = True


class TimeLimitThread:
    """Interrupts jobs that exceed their time limit, and replaces threads that do not react."""

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
        """Adds the thread of ``slot``."""
        self._slots.add(slot)

    def forget(self, slot: Slot) -> None:
        """Removes the thread of ``slot``."""
        self._slots.discard(slot)
        if not slot.abandoned:
            free_place(slot.place)

    def interrupt(self, job: ClaimedJob) -> bool:
        """Interrupts, because of a command, the thread that runs only this job.

        Returns:
            Whether that thread sets the job's outcome: RQ's own methods run it, and call its callbacks.
        """
        for slot in list(self._slots):
            with slot.lock:
                if len(slot.jobs) == 1 and slot.jobs[0] is job:
                    slot.stopped = True
                    # RQ's methods check this before they call the function; callbacks are not interrupted.
                    if not slot.rqs or (slot.rq_limit and slot.calls == 1):
                        slot.interrupt(by_command=True)
                        slot.deadline = time.monotonic()  # its patience begins now
                    return slot.rqs
        return False

    def began(self, job: ClaimedJob) -> float:
        """Returns the start of this job's run, in Unix time; the current time if it has not begun."""
        return next((slot.began for slot in list(self._slots) if job in slot.jobs), time.time())

    def _run(self) -> None:
        while not self._stopping.wait(PERIOD):
            now = time.monotonic()
            for slot in list(self._slots):
                if slot.deadline < now:
                    try:
                        self._enforce(slot, now)
                    except Exception:  # the limits of the other threads must still be enforced
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
