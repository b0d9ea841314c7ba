"""``rqjobs worker``: sets up one worker, runs it until it is stopped, and cleans up."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

import redis

from rqjobs.broker.connection import connect
from rqjobs.config.logs import event
from rqjobs.config.settings import get_settings
from rqjobs.policies import get_policy, import_registrations, policies
from rqjobs.schedules.leader import keep_schedules
from rqjobs.worker.engine_worker import EngineWorker, WorkerOptions
from rqjobs.worker.exception_handlers import ExceptionHandler
from rqjobs.worker.loop import WorkerLoop
from rqjobs.worker.maintenance import Maintenance
from rqjobs.worker.running_jobs import share
from rqjobs.worker.watcher_client import watched

SUPERVISED = "RQJOBS_SUPERVISED"
"""The environment variable in which the supervisor sets this worker's name."""

SWITCH = 0.001
"""Seconds that a thread may keep the interpreter from the others (Python's default, 0.005, is felt as latency)."""


def run_worker(
    queues: Sequence[str] | None = None,
    *,
    burst: bool = False,
    threads: int | None = None,
    grace: float = 25.0,
    max_jobs: int | None = None,
    max_rss: int | None = None,
    exception_handlers: Sequence[ExceptionHandler] = (),
    watch: bool = False,
) -> int:
    """Runs jobs of ``queues`` (all by default) until it is stopped by a signal or a command.

    Args:
        queues: names of queues; their lanes are claimed in priority order.
        burst: end when nothing waits and nothing is due.
        threads: how many jobs run at once in all, divided by the queues' concurrency; None uses each queue's own.
        grace: seconds that running jobs get at SIGTERM before they are released.
        max_jobs: end after this number of jobs.
        max_rss: end when the process has more than this number of bytes.
        exception_handlers: called, each with an RQ job and the exception's type, value and traceback, when a run of a
            job has raised; one that returns False keeps those after it from being called.
        watch: have another process end this one when its interpreter is frozen, and take over its jobs when it dies.

    Returns:
        The exit code: 0.

    Raises:
        RedisUnavailable: Redis does not respond at the start. Later outages are waited out.
    """
    sys.setswitchinterval(SWITCH)
    settings = get_settings()
    import_registrations()
    served = [get_policy(name) for name in queues] if queues else list(policies())
    memory = share() if watch else None  # before any thread has its place in it
    options = WorkerOptions(
        name=os.environ.get(SUPERVISED),
        burst=burst,
        threads=threads,
        grace=grace,
        max_jobs=max_jobs,
        exception_handlers=exception_handlers,
    )
    worker = EngineWorker(served, connect(), settings, options)
    loop = worker.loop
    maintenance = Maintenance(worker, settings, max_rss=max_rss)
    worker.register_birth()
    with (
        _signals(loop, grace),
        watched(worker.name, memory, loop.protocol.lease, grace),
        keep_schedules(worker.connection, lambda: bool(loop.leading)),
    ):
        worker.time_limits.start()
        maintenance.start()
        _exclude_from_gc()
        names = ",".join(policy.name for policy in served)
        event(logging.INFO, "worker started", name=worker.name, queues=names, pid=os.getpid())
        loop.run()
    worker.close()
    with contextlib.suppress(redis.exceptions.RedisError, OSError):
        maintenance.stop()
        worker.register_death()
    worker.connection.close()
    event(logging.INFO, "worker stopped", name=worker.name)
    return 0


def _exclude_from_gc() -> None:
    """Takes the loaded modules out of garbage collection, which would stop all jobs for 50 to 100 ms each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@contextlib.contextmanager
def _signals(loop: WorkerLoop, grace: float) -> Iterator[None]:
    """SIGTERM and SIGINT: stop within the grace period; a second one releases everything at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _frame: object) -> None:
        again = loop.stopping
        name = signal.Signals(number).name
        loop.stop(0.0 if again else grace, name + (" again: releasing jobs" if again else ""))

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
