"""Calls the app's hooks (rqjobs.hooks), each in its own thread."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from collections.abc import Callable
from queue import Full, Queue
from typing import Any

import redis

from rqjobs.broker.rq_schema import fetch_job
from rqjobs.config.logs import event
from rqjobs.errors import JobNotFound, UnreadableJob
from rqjobs.hooks import KINDS, Hook, JobEvent, Kind, hooks_for
from rqjobs.worker.claimed_job import ClaimedJob
from rqjobs.worker.hook_events import begun, ended, event_of_dead_job, kind_of

MAX_WAITING = 10_000
"""The most events that wait for one hook: with payloads of a few kB they take tens of MB."""

LIMIT = 30.0
"""Seconds after which an async hook is cancelled; a plain one is logged, because a thread cannot be ended."""

PATIENCE = 5.0
"""The most seconds that a worker waits for hooks when it ends."""


class HookThread:
    """One hook, its thread, and the events that wait for it."""

    def __init__(self, hook: Hook) -> None:
        self.hook = hook
        self._events: Queue[Callable[[], JobEvent] | None] = Queue(MAX_WAITING)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._since: float | None = None  # the start of the current call
        self._dropped = 0

    def put(self, read_event: Callable[[], JobEvent]) -> None:
        """Queues one event. Never blocks."""
        if self._thread is None:
            self._start()
        try:
            self._events.put_nowait(read_event)
        except Full:
            self._dropped += 1
            if self._dropped == 1:
                event(logging.ERROR, "a hook is too slow: events are dropped", hook=self.hook.name, waiting=MAX_WAITING)

    def close(self, deadline: float) -> None:
        """Waits until all queued events have been handled, up to ``deadline`` of ``time.monotonic()``."""
        if self._thread is None:
            return
        try:
            self._events.put(None, timeout=max(0.0, deadline - time.monotonic()))
        except Full:
            pass
        else:
            self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            event(logging.ERROR, "a hook did not end: its events are lost", hook=self.hook.name,
                  waiting=self._events.qsize())  # fmt: skip
        self._thread = None

    def check(self) -> None:
        """Logs a plain hook that has not returned for ``LIMIT``; once for each call."""
        since = self._since
        if since is not None and time.monotonic() - since > LIMIT:
            self._since = None
            event(logging.ERROR, "a hook has not returned", hook=self.hook.name, seconds=LIMIT)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="rqjobs-hook", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        with asyncio.Runner() as runner:
            while (read_event := self._events.get()) is not None:
                self._call(read_event, runner)
                if self._dropped and self._events.empty():
                    event(logging.ERROR, "events of a hook were dropped", hook=self.hook.name, dropped=self._dropped)
                    self._dropped = 0

    def _call(self, read_event: Callable[[], JobEvent], runner: asyncio.Runner) -> None:
        self._since = time.monotonic()
        try:
            answer = self.hook.function(read_event())
            if inspect.isawaitable(answer):
                runner.run(_within_limit(answer))
        except BaseException:  # no exception of a hook, not even SystemExit, may end its thread
            logging.getLogger("rqjobs").exception("a hook failed: %s", self.hook.name)
        finally:
            self._since = None


async def _within_limit(awaitable: Any) -> None:
    async with asyncio.timeout(LIMIT):
        await awaitable


class HookThreads:
    """The threads of all hooks of this process; constructed after the app's modules are imported. Thread-safe."""

    def __init__(self) -> None:
        threads: dict[int, HookThread] = {}
        self._by_kind: dict[Kind, list[HookThread]] = {
            kind: [threads.setdefault(id(hook), HookThread(hook)) for hook in hooks_for(kind)] for kind in KINDS
        }
        self._threads = list(threads.values())
        self.any = bool(self._threads)
        """Whether a hook is registered."""

    def wants(self, kind: Kind) -> bool:
        """Returns whether a hook is registered for ``kind``."""
        return bool(self._by_kind[kind])

    def put(self, kind: Kind, queue: str, read_event: Callable[[], JobEvent]) -> None:
        """Queues an event for the hooks of ``kind`` and ``queue``; each calls ``read_event`` in its own thread."""
        for thread in self._by_kind[kind]:
            if thread.hook.queue in (None, queue):
                thread.put(read_event)

    def started(self, job: ClaimedJob) -> None:
        """Queues the event of a run that begins."""
        now = time.time()
        self.put("start", job.policy.name, lambda: begun(job, now))

    def ended(self, job: ClaimedJob) -> None:
        """Queues the event of a job whose outcome is written; none for one that has not run."""
        kind = kind_of(job.outcome)
        if kind is not None:
            self.put(kind, job.policy.name, lambda: ended(kind, job))

    def rescued(self, job_id: str, client: redis.Redis) -> None:
        """Queues the event of a job that is dead because the worker that ran it died."""
        if not self.wants("dead"):
            return
        try:
            found = event_of_dead_job(fetch_job(job_id, client))
        except (JobNotFound, UnreadableJob):
            return
        self.put("dead", found.queue, lambda: found)

    def check(self) -> None:
        """Logs hooks that hang; called every second or so."""
        for thread in self._threads:
            thread.check()

    def close(self) -> None:
        """Waits for the hooks of all queued events, at most ``PATIENCE``. Later events start new threads."""
        deadline = time.monotonic() + PATIENCE
        for thread in self._threads:
            thread.close(deadline)
