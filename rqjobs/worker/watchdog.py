"""Time limits for threads: one thread watches all others."""

from __future__ import annotations

import ctypes
import logging
import threading
import time
from collections.abc import Callable

from rqjobs.worker.taken import Taken

PERIOD = 0.1
"""Seconds between two looks."""

PATIENCE = 5.0
"""Seconds that a thread stuck in a system call has after its limit, before it is given up."""


class TimeLimit(BaseException):
    """Raised inside a thread whose job ran past its limit; ``except Exception`` lets it by."""


class Stopped(TimeLimit):
    """The same by command: the job is not to run again."""


class Slot:
    """What one thread does, for the watchdog. The lock makes sure that TimeLimit hits the job it is meant for."""

    __slots__ = ("abandoned", "deadline", "jobs", "lock", "stopped", "thread_id", "warned")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.thread_id = threading.get_ident()
        self.jobs: list[Taken] = []
        self.deadline = 0.0
        self.warned = False
        self.abandoned = False
        """The thread is given up: whatever it does from now on is nobody's business."""
        self.stopped = False
        """The limit was set off by a command, not by the clock."""

    def enter(self, jobs: list[Taken], limit: float) -> None:
        """The thread begins ``jobs``; ``limit`` in seconds, none if not above zero."""
        with self.lock:
            self.jobs, self.warned, self.stopped = jobs, False, False
            self.deadline = time.monotonic() + limit if limit > 0 else float("inf")

    def leave(self) -> None:
        """The thread has left its jobs; no TimeLimit comes any more."""
        while True:
            try:
                with self.lock:
                    self.jobs = []
                    self.deadline = float("inf")
                    if self.warned:
                        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread_id), None)
            except TimeLimit:  # it came just now
                continue
            return

    def interrupt(self, why: type[TimeLimit] = TimeLimit) -> None:
        """Raises ``why`` in the thread, as soon as it runs Python code; with the lock held."""
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread_id), ctypes.py_object(why))
        self.warned = True


class Watchdog:
    """Interrupts what runs past its limit; gives up, and replaces, threads that do not even notice."""

    def __init__(self, give_up: Callable[[Slot, list[Taken]], None]) -> None:
        self._slots: set[Slot] = set()
        self._give_up = give_up
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rqjobs-watchdog", daemon=True)

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

    def interrupt(self, job: Taken) -> bool:
        """Interrupts the thread that runs this job alone, because somebody asked for it; False if none does."""
        for slot in list(self._slots):
            with slot.lock:
                if len(slot.jobs) == 1 and slot.jobs[0] is job:
                    slot.stopped = True
                    slot.interrupt(Stopped)
                    slot.deadline = time.monotonic()  # from now on its patience counts
                    return True
        return False

    def _run(self) -> None:
        while not self._stopping.wait(PERIOD):
            now = time.monotonic()
            for slot in list(self._slots):
                if slot.deadline < now:
                    try:
                        self._judge(slot, now)
                    except Exception:  # the others' limits must hold all the same
                        logging.getLogger("rqjobs").exception("a time limit could not be kept")

    def _judge(self, slot: Slot, now: float) -> None:
        with slot.lock:
            jobs = slot.jobs
            if not jobs or slot.deadline >= now:
                return
            if not slot.warned:
                slot.interrupt()
                return
            if now < slot.deadline + PATIENCE:
                return
            slot.abandoned = True
        self.forget(slot)
        self._give_up(slot, jobs)
