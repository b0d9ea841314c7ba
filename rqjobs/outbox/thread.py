"""The relay inside a worker, which reads the outbox at an interval."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from rqjobs.config.logs import event
from rqjobs.config.settings import get_settings

_AFTER_FAULT = 1.0
"""Seconds until a failed relay tries again, or RQJOBS_OUTBOX_EVERY if that is longer. The wait does not grow: a try is
cheap, and committed jobs should continue as soon as the database answers again."""


class Relay:
    """The relay inside a worker: call :meth:`tick` often; it runs every RQJOBS_OUTBOX_EVERY by default."""

    def __init__(self, every: timedelta | None = None) -> None:
        self._every = (get_settings().rqjobs_outbox_every if every is None else every).total_seconds()
        self._next = 0.0
        self._failing: str | None = None

    def tick(self) -> None:
        """Moves the committed jobs if it is time; an error is logged once, and the call is tried again later."""
        now = time.monotonic()
        if self._every == 0 or now < self._next:
            return
        self._next = now + self._every
        if _nothing_written():
            return
        from rqjobs.outbox.relay import FAULTS, relay

        try:
            if moved := relay():
                event(logging.INFO, "outbox moved", jobs=moved)
            self._failing = None
        except FAULTS as error:
            self._next = now + max(self._every, _AFTER_FAULT)
            reason = str(error).splitlines()[0]
            if reason != self._failing:
                event(logging.WARNING, "outbox not read", error=reason)
            self._failing = reason

    def run(self, stop: threading.Event) -> None:
        """Calls :meth:`tick` until ``stop`` is set."""
        while not stop.wait(min(self._every, 1.0)):
            self.tick()


@contextlib.contextmanager
def relaying() -> Iterator[None]:
    """Runs a relay in its own thread while the block runs; it has run once before the block begins."""
    relay_ = Relay()
    relay_.tick()
    stop = threading.Event()
    if get_settings().rqjobs_outbox_every == timedelta():
        yield
        return
    thread = threading.Thread(target=relay_.run, args=(stop,), name="rqjobs-outbox", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(5)


def _nothing_written() -> bool:
    """Returns whether DATABASE_URL is a SQLite file that does not exist; then SQLAlchemy (13 MB) need not be loaded."""
    scheme, _, file = get_settings().database_url.get_secret_value().partition("?")[0].partition(":///")
    return scheme == "sqlite" and not file.startswith(("file:", ":memory:")) and file != "" and not Path(file).exists()
