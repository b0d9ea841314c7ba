"""A pytest plugin for RQ's own tests: every worker of theirs works by the engine of rqjobs.

Each worker runs what its queues hold with :func:`rqjobs.worker.run.run_worker`, one job of a queue at a time. Two
rules of ours are lifted, for RQ's tests enqueue pickles and functions of their own: the serializer is the worker's, and
every function is registered.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rq.job import Job
from rq.serializers import resolve_serializer
from rq.worker import BaseWorker

from rqjobs.broker import rq_schema


class WorkersSerializer:
    """The serializer of the worker that works now."""

    now: Any = resolve_serializer(None)

    @classmethod
    def loads(cls, data: bytes) -> Any:
        return cls.now.loads(data)

    @classmethod
    def dumps(cls, *args: Any, **options: Any) -> bytes:
        return cls.now.dumps(*args, **options)


rq_schema.SERIALIZER = WorkersSerializer  # before the worker's modules import it
rq_schema.RegisteredJob.refusal = property(lambda _job: None)
rq_schema.RegisteredJob.func = Job.func
rq_schema.RegisteredJob.func_name = Job.func_name

from rqjobs import policies  # noqa: E402
from rqjobs.config.settings import use_settings  # noqa: E402
from rqjobs.worker import run  # noqa: E402

NEVER_READ = os.environ["RQ_SUITE_DATA"]


class OfTheWorker(run.EngineWorker):
    """The engine's worker, which counts what it has run."""

    ran = 0

    def settled(self, job: Any) -> None:
        type(self).ran += job.outcome.name not in ("released", "held", "left")
        super().settled(job)


run.EngineWorker = OfTheWorker


@contextmanager
def surroundings(worker: BaseWorker) -> Iterator[list[str]]:
    """The settings of one worker's connection, and policies for its queues."""
    pool = worker.connection.connection_pool.connection_kwargs
    os.environ["REDIS_URL"] = f"redis://127.0.0.1:{os.environ['RQ_SUITE_PORT']}/{pool.get('db', 0)}"
    os.environ["RQJOBS_DATA"] = NEVER_READ
    os.environ[run.SUPERVISED] = worker.name
    use_settings(None)
    WorkersSerializer.now = worker.serializer
    known = dict(policies._POLICIES)
    names = [queue.name for queue in worker.queues]
    for name in names:
        policies.register_queue(
            policies.QueuePolicy(
                name=name, kind=name, model="rqjobs.jobs:WebhookJob", processor="rqjobs.worker.entry:perform"
            )
        )
    try:
        yield names
    finally:
        policies._POLICIES.clear()
        policies._POLICIES.update(known)
        for name in ("REDIS_URL", "RQJOBS_DATA", run.SUPERVISED):
            del os.environ[name]


def work(  # noqa: PLR0917  # RQ's signature
    self: BaseWorker,
    burst: bool = False,
    logging_level: Any = None,
    date_format: str = "",
    log_format: str = "",
    max_jobs: int | None = None,
    max_idle_time: int | None = None,
    with_scheduler: bool = False,
    dequeue_strategy: Any = None,
) -> bool:
    """In place of RQ's loop."""
    with surroundings(self) as names:
        OfTheWorker.ran = 0
        OfTheWorker.disable_default_exception_handler = self.disable_default_exception_handler
        run.run_worker(
            names,
            burst=burst or max_idle_time is not None,
            threads=1,
            max_jobs=max_jobs,
            exception_handlers=self._exc_handlers,
        )
    own = self.queues
    self.refresh()
    self.queues = own  # the engine's worker of this name has their lanes
    return bool(OfTheWorker.ran)


BaseWorker.work = work

_kill, _tests_process = os.kill, os.getpid()


def kill(pid: int, number: int) -> None:
    """Some tests kill the work horse of a job: here that is the process of the tests."""
    if pid == _tests_process and number == signal.SIGKILL:
        raise ProcessLookupError("no work horse")
    _kill(pid, number)


os.kill = kill
OUTCOMES = Path(os.environ["RQ_SUITE_OUTCOMES"])
_failed: set[str] = set()
_skipped: set[str] = set()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Notes which tests have failed and which have passed, for run.py to compare."""
    if report.failed:
        _failed.add(report.nodeid)
    if report.skipped:
        _skipped.add(report.nodeid)
    if report.when == "teardown" and report.nodeid not in _skipped:
        outcome = "failed" if report.nodeid in _failed else "passed"
        with OUTCOMES.open("a") as file:
            file.write(f"{outcome} {report.nodeid}\n")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Ends a test that hangs, such as one that waits for a work horse."""

    def give_up(*_args: object) -> None:
        raise TimeoutError("the test hangs")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(60)
    yield
    signal.alarm(0)
