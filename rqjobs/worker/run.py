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
"""The environment variable by which the supervisor passes this worker's name."""

SWITCH = 0.001
"""Seconds after which a thread has to release the interpreter: Python's default of 0.005 adds to each job's latency."""


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
    """Runs jobs of ``queues`` (by default all) until it is stopped by a signal or a command.

    Args:
        queues: names of queues; their lanes are claimed in the order of priority.
        burst: end when no job waits and none is due.
        threads: the total number of jobs that run at once, divided by the queues' concurrency; None uses each queue's
            own.
        grace: seconds that running jobs get at SIGTERM before they are released.
        max_jobs: end after this number of jobs.
        max_rss: end when the process has more than this number of bytes.
        exception_handlers: called after a run that raised, each with an RQ job and the exception's type, value and
            traceback; if one returns False, those after it are not called.
        watch: start a watcher process, which ends this one if its interpreter freezes, and rescues its jobs if it dies.

    Returns:
        The exit code: 0.

    Raises:
        RedisUnavailable: Redis does not answer at the start. Later outages are waited out.
    """
    sys.setswitchinterval(SWITCH)
    settings = get_settings()
    import_registrations()
    served = [get_policy(name) for name in queues] if queues else list(policies())
    memory = share() if watch else None  # before the first thread gets its place in it
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
    """Excludes the loaded modules from garbage collection, which would stop all jobs for 50 to 100 ms each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@contextlib.contextmanager
def _signals(loop: WorkerLoop, grace: float) -> Iterator[None]:
    """Handles SIGTERM and SIGINT: the first stops within the grace period, the second releases all jobs at once."""
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
