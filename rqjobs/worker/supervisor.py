"""``--processes N``: keeps N worker processes running, and stops them at SIGTERM or SIGINT."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

from rqjobs.config.logs import event
from rqjobs.worker.takeover import take_over

_LOOK = 0.1
"""Seconds between two checks of the processes."""

_LONG_LIFE = 60.0
"""A process that dies after this many seconds is restarted at once; one that dies earlier, after a pause."""

_RAN = 10.0
"""A process that lived this many seconds had valid settings and a reachable Redis."""

_LONGEST_PAUSE = 30.0

_WATCHER = 15.0
"""Seconds that a worker's watcher has to rescue its jobs first: it has the list of running ones
(rqjobs.worker.takeover)."""

_CANNOT_START = 2
"""The exit code of a worker with invalid settings, or without a reachable Redis. Restarting it does not help, unless
workers of this supervisor have run before: then only Redis is unreachable."""


@dataclass
class _Member:
    """One of the processes."""

    process: subprocess.Popen[bytes] | None = None
    name: str = ""
    born: float = 0.0
    again_at: float = 0.0
    """The time of the next start, ``time.monotonic()``."""
    pause: float = 0.5
    done: bool = False


class Supervisor:
    """Starts ``rqjobs worker`` N times, and restarts processes that die."""

    def __init__(
        self, arguments: Sequence[str], processes: int, *, grace: float, burst: bool, watched: bool = True
    ) -> None:
        """Takes the arguments of ``rqjobs worker`` without ``--processes``.

        Args:
            arguments: the arguments of each process.
            processes: the number of processes.
            grace: seconds that a process has to end; the same as its own setting.
            burst: do not restart a process that ended without an error.
            watched: whether each process has its own watcher.
        """
        self._command = [sys.executable, "-m", "rqjobs", "worker", *arguments]
        self._members = [_Member() for _ in range(processes)]
        self._grace = grace
        self._burst = burst
        self._watched = watched
        self._signals = 0
        self._why: deque[str] = deque()
        self._ran = False
        self._told = 0
        self._kill_at = 0.0
        self._code = 0

    def run(self) -> int:
        """Runs until it is stopped, or a burst is over; returns the exit code."""
        self._install_signals()
        event(logging.INFO, "supervisor started", processes=len(self._members), pid=os.getpid())
        while True:
            self._pass_on_signals()
            for member in self._members:
                self._look_after(member)
            if all(member.process is None and (member.done or self._signals) for member in self._members):
                event(logging.INFO, "supervisor stopped")
                return self._code
            time.sleep(_LOOK)

    def _install_signals(self) -> None:
        def stop(number: int, _frame: object) -> None:
            self._signals += 1
            self._why.append(signal.Signals(number).name)  # the loop logs it: here a log line may be incomplete

        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, stop)
            signal.signal(signal.SIGINT, stop)

    def _pass_on_signals(self) -> None:
        while self._why:
            event(logging.INFO, "supervisor stopping", why=self._why.popleft())
        if self._told < self._signals:
            self._told = self._signals
            self._kill_at = self._kill_at or time.monotonic() + self._grace + 10
            self._tell(signal.SIGTERM)
        elif self._kill_at and time.monotonic() > self._kill_at:
            event(logging.ERROR, "workers outlasted their grace period and are killed")
            self._tell(signal.SIGKILL)

    def _tell(self, number: signal.Signals) -> None:
        for member in self._members:
            if member.process is not None:
                member.process.send_signal(number)

    def _look_after(self, member: _Member) -> None:
        if member.process is None:
            if not member.done and not self._signals and time.monotonic() >= member.again_at:
                self._start(member)
            return
        code = member.process.poll()
        if code is None:
            return
        member.process = None
        self._ran = self._ran or code == 0 or time.monotonic() - member.born > _RAN
        if code == 0:
            member.done, member.again_at, member.pause = self._burst, 0.0, 0.5
        elif self._signals and code == -signal.SIGTERM:
            pass  # the signal came before it had installed its handler
        elif code == _CANNOT_START and not self._ran:
            self._code, self._signals = code, self._signals + 1
        else:
            self._replace(member, code)

    def _start(self, member: _Member) -> None:
        member.name, member.born = uuid4().hex, time.monotonic()
        environment = {**os.environ, "RQJOBS_SUPERVISED": member.name}
        member.process = subprocess.Popen(self._command, env=environment, start_new_session=True)  # noqa: S603

    def _replace(self, member: _Member, code: int) -> None:
        """Schedules the restart of a process that has died, and the rescue of its jobs.

        Its death is certain, so the rescue does not wait for the leases.
        """
        lived = time.monotonic() - member.born
        member.pause = 0.5 if lived > _LONG_LIFE else min(member.pause * 2, _LONGEST_PAUSE)
        member.again_at = time.monotonic() + (0.0 if lived > _LONG_LIFE else member.pause)
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        event(logging.ERROR, "worker died", name=member.name, of=how, lived=lived)
        pause = _WATCHER if self._watched else 0.0
        timer = threading.Timer(pause, take_over, (member.name,))  # a thread, because Redis may be slow or unreachable
        timer.daemon = True
        timer.start()
