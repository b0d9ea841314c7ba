"""Helpers for the tests of apps: capture enqueued jobs, run a job inline, or drain queues in a real Redis."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, cast

from rq import SimpleWorker
from rq.job import Job
from rq.timeouts import BaseDeathPenalty

from rqjobs.attempt import Attempt
from rqjobs.broker.attempts import reason_of
from rqjobs.broker.connection import close_connection, connect, get_connection
from rqjobs.broker.embedded import ensure_server, stop_server
from rqjobs.broker.groups import ungroup
from rqjobs.broker.job_writer import Entry, capture_with
from rqjobs.broker.rq_schema import SERIALIZER, job_key, key
from rqjobs.config.settings import get_settings, use_settings
from rqjobs.errors import SchemaMismatch
from rqjobs.jobs import JobModel
from rqjobs.jobs.at_rest import decrypt_job
from rqjobs.policies import get_policy, import_registrations, lanes_in_order
from rqjobs.worker.claimed_job import RESULT_TTL
from rqjobs.worker.execution import resolve
from rqjobs.worker.execution import run as run_processor
from rqjobs.worker.rq_worker import StockWorker

ModelT = TypeVar("ModelT", bound=JobModel)


def run(job: JobModel, *, job_id: str = "test", number: int = 1, of: int | None = None) -> Any:
    """Runs ``job`` in this thread, without Redis, and returns the result of its processor.

    Args:
        job: any job model; of an own job, ``make_thumbnail.job({...})``.
        job_id: the id that the processor sees.
        number: the number of the attempt, from 1.
        of: the number of attempts allowed; by default that of the queue's policy.

    Raises:
        Exception: any exception of the processor, including ``PermanentFailure`` and ``RetryLater``.
    """
    policy = get_policy(job.queue)
    attempt = Attempt(job_id=job_id, queue=policy.name, number=number, of=of or policy.attempts, timeout=policy.timeout)
    return run_processor(policy, job, attempt)


@dataclass(frozen=True, kw_only=True)
class CapturedJob(Generic[ModelT]):
    """One captured job."""

    job: ModelT
    job_id: str
    lane: str
    """The lane (a named queue of one priority), such as ``webhooks:high``."""
    attempts: int
    delay: timedelta | None
    at: datetime | None = None
    """The time of the first run, in UTC, if it was enqueued with ``at=``."""

    @property
    def priority(self) -> str:
        """``high``, ``normal`` or ``low``."""
        return self.lane.partition(":")[2] or "normal"


@dataclass
class Captured:
    """The jobs enqueued inside a :func:`capture` block, oldest first."""

    jobs: list[CapturedJob[JobModel]] = field(default_factory=list)
    then: list[CapturedJob[JobModel]] = field(default_factory=list)
    """The jobs that are enqueued when every member of a batch is done; :meth:`run_all` runs them after the members."""
    on_dead: list[CapturedJob[JobModel]] = field(default_factory=list)
    """The jobs that are enqueued at the first dead member of a batch."""
    waiting: dict[str, str] = field(default_factory=dict)
    """The lanes, by job id, of jobs that wait for a commit, after which they move to ``jobs``."""
    _ids: set[str] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.jobs)

    def of(self, model: type[ModelT]) -> list[CapturedJob[ModelT]]:
        """Returns the jobs of one model."""
        return [cast("CapturedJob[ModelT]", item) for item in self.jobs if isinstance(item.job, model)]

    def assert_enqueued(
        self, model: type[ModelT], *, count: int | None = None, priority: str | None = None, **fields: Any
    ) -> CapturedJob[ModelT]:
        """Returns the first job of ``model`` with the given values; fails if there is none.

        Args:
            model: such as ``WebhookJob``.
            count: the exact number of such jobs; by default one or more.
            priority: the priority that the job must have.
            fields: values that fields of the job must have.

        Raises:
            AssertionError: there is none, or another number; the message shows what was enqueued.
        """
        found = [
            item
            for item in self.of(model)
            if (priority is None or item.priority == priority)
            and all(getattr(item.job, name) == value for name, value in fields.items())
        ]
        if not found or (count is not None and len(found) != count):
            wanted = f"{'a' if count is None else count} {model.__name__}"
            details = "".join(f" {name}={value!r}" for name, value in {**fields, "priority": priority}.items() if value)
            raise AssertionError(f"expected {wanted}{details}, found {len(found)}; {self._described()}")
        return found[0]

    def assert_nothing(self, model: type[JobModel] = JobModel) -> None:
        """Fails if a job (of ``model``) was enqueued.

        Raises:
            AssertionError: one was; the message shows it.
        """
        if self.of(model):
            raise AssertionError(f"expected no {model.__name__}; {self._described()}")

    def run_all(self) -> list[Any]:
        """Runs the jobs inline, including those that they enqueue; returns the results, and clears the list.

        The ``then`` of batches runs after all of them, because the exception of a failed member ends this call.

        Raises:
            Exception: any exception of a processor.
        """
        results = []
        while self.jobs or self.then:
            item = (self.jobs or self.then).pop(0)
            results.append(run(item.job, job_id=item.job_id, of=item.attempts))
        return results

    def _described(self) -> str:
        lines = [f"  {item.lane}: {item.job!r}" for item in self.jobs]
        text = "\n".join(["enqueued was:", *lines]) if lines else "nothing was enqueued"
        if not self.waiting:
            return text
        number = len(self.waiting)
        return (
            f"{text}; {number} job{'s wait' if number > 1 else ' waits'} for a commit (or for ever, if it was rolled "
            "back): in a TestCase of Django use captureOnCommitCallbacks(execute=True)"
        )

    def wait(self, entries: Sequence[Entry]) -> None:
        """Records jobs that wait for a commit."""
        self.waiting |= {entry.job_id: entry.kind.lane for entry in entries}

    def has(self, job_id: str) -> bool:
        """Returns whether a job with this id was enqueued or waits for a commit."""
        return job_id in self._ids or job_id in self.waiting

    def add(self, entries: Sequence[Entry]) -> None:
        """Records jobs that would have been written to Redis or to an outbox."""
        debounced = {entry.job_id for entry in entries if entry.again is not None} & self._ids
        self.jobs = [item for item in self.jobs if item.job_id not in debounced]  # the last call replaces the others
        self.jobs += self._take(entries)

    def follow(self, then: Sequence[Entry], on_dead: Sequence[Entry]) -> None:
        """Records the jobs that wait for a batch."""
        self.then += self._take(then)
        self.on_dead += self._take(on_dead)

    def _take(self, entries: Sequence[Entry]) -> Iterator[CapturedJob[JobModel]]:
        for entry in entries:
            self.waiting.pop(entry.job_id, None)
            self._ids.add(entry.job_id)
            queue, payload = json.loads(entry.data)[2]
            yield CapturedJob(
                job=decrypt_job(resolve(queue, payload)[1], entry.job_id),
                job_id=entry.job_id,
                lane=entry.kind.lane,
                attempts=int(entry.kind.fields.get("retries_left", 0)) + 1,
                delay=timedelta(seconds=entry.delay) if entry.delay is not None else None,
                at=datetime.fromtimestamp(entry.at, UTC) if entry.at is not None else None,
            )


@contextlib.contextmanager
def capture() -> Iterator[Captured]:
    """Inside the block jobs are captured instead of written to Redis, which is not needed; yields the captured jobs.

    Jobs are validated as usual. Those of a call with ``outbox=`` are captured at the call, whether or not its
    transaction commits, and nothing is written to the table. Those that wait for a transaction of Django are captured
    when it commits; until then they are in ``waiting``.
    """
    captured = Captured()
    capture_with(captured)
    try:
        yield captured
    finally:
        capture_with(None)


@dataclass(frozen=True, kw_only=True)
class Ran:
    """One run of one job in :func:`drain`."""

    job_id: str
    queue: str
    outcome: Literal["done", "retried", "dead"]
    result: Any = None
    error: str | None = None
    """The error in one line; None for a run that was done."""


@dataclass
class Drained:
    """The runs of a call of :func:`drain`, in order."""

    runs: list[Ran] = field(default_factory=list)

    @property
    def done(self) -> list[Ran]:
        """The runs that were done."""
        return [ran for ran in self.runs if ran.outcome == "done"]

    @property
    def dead(self) -> list[Ran]:
        """The runs after which the job was dead."""
        return [ran for ran in self.runs if ran.outcome == "dead"]

    def assert_no_failures(self) -> None:
        """Fails unless at least one job ran and every run was done.

        Raises:
            AssertionError: nothing ran, or a run was not done; the message names it.
        """
        if not self.runs:
            raise AssertionError(
                "nothing ran: no job waited in these queues, and none in the outbox at DATABASE_URL. A job of a "
                "transaction waits for its commit"
            )
        if failed := [ran for ran in self.runs if ran.outcome != "done"]:
            raise AssertionError("\n".join(f"{ran.queue} {ran.job_id}: {ran.error}" for ran in failed))


def drain(*queues: str, delayed: bool = True, rounds: int = 200) -> Drained:
    """Runs the jobs of ``queues`` (by default all) in this process, in order, until none waits; returns every run.

    The jobs go through Redis and RQ's own code: outcomes, history, dead letters and totals are real. First, jobs in
    the outbox at DATABASE_URL are moved to Redis.

    Args:
        queues: names of queues.
        delayed: whether delayed jobs and retries run at once, as if their time had come.
        rounds: the most passes over the queues.

    Raises:
        RuntimeError: jobs still wait after ``rounds``, such as one that always raises RetryLater.
    """
    import_registrations()
    names = lanes_in_order([get_policy(name).name for name in queues] or None)
    drained = Drained()
    for _ in range(rounds):
        _relay()
        if delayed:
            _make_due(names)
        client = get_connection()
        while ungroup(client, names):
            pass
        if not any(client.llen(key("queue", name)) for name in names):
            return drained
        worker = _InlineWorker(names, connection=client, serializer=SERIALIZER, default_result_ttl=RESULT_TTL)
        worker.drained = drained
        worker.work(burst=True, logging_level="CRITICAL")
    raise RuntimeError(f"jobs still wait after {rounds} rounds: does one always raise RetryLater?")


def _relay() -> None:
    from rqjobs.outbox.relay import relay  # SQLAlchemy is heavy, and a test may not need it

    url = get_settings().database_url.get_secret_value()
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///").partition("?")[0]).exists():
        return
    with contextlib.suppress(SchemaMismatch):  # without tables nothing is in an outbox
        relay()


def _make_due(names: Sequence[str]) -> None:
    client = get_connection()
    with client.pipeline() as pipeline:
        for name in names:
            for job_id in cast("list[bytes]", client.zrange(key("scheduled", name), 0, -1)):
                pipeline.zrem(key("scheduled", name), job_id)
                pipeline.hset(job_key(job_id.decode()), "status", "queued")
                pipeline.rpush(key("queue", name), job_id)
        pipeline.execute()


class _NoLimit(BaseDeathPenalty):
    """No time limit: the test has its own, and signals reach the main thread only."""

    def setup_death_penalty(self) -> None:
        """Does nothing."""

    def cancel_death_penalty(self) -> None:
        """Does nothing."""


class _InlineWorker(SimpleWorker, StockWorker):
    death_penalty_class = _NoLimit
    drained: Drained

    def _install_signal_handlers(self) -> None:
        """Does nothing: the process of the test keeps its own handlers."""

    def handle_job_success(self, job: Job, *args: Any, **kwargs: Any) -> None:
        super().handle_job_success(job, *args, **kwargs)
        self.drained.runs.append(Ran(job_id=job.id, queue=job.origin, outcome="done", result=job.return_value()))

    def handle_job_failure(self, job: Job, *args: Any, **kwargs: Any) -> None:
        outcome: Literal["retried", "dead"] = "retried" if job.should_retry else "dead"
        text = kwargs.get("exc_string") or next((a for a in args if isinstance(a, str)), "")
        super().handle_job_failure(job, *args, **kwargs)
        self.drained.runs.append(Ran(job_id=job.id, queue=job.origin, outcome=outcome, error=reason_of(text)))


@contextlib.contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Inside the block these variables are set, for this process and its children, and settings are read again."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    use_settings(None)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        use_settings(None)


@contextlib.contextmanager
def embedded_redis() -> Iterator[str]:
    """Starts an embedded Redis in a temporary folder, and stops it after the block; yields its URL.

    Raises:
        EmbeddedServerError: no server is installed: ``pip install 'rqjobs[embedded]'``.
    """
    folder = Path(tempfile.mkdtemp(prefix="rqjobs-test-"))
    try:
        yield f"unix://{ensure_server(folder)}"
    finally:
        stop_server(folder)
        shutil.rmtree(folder, ignore_errors=True)


def empty_redis(url: str) -> None:
    """Empties the database at ``url`` and closes cached connections. Only for a Redis made for tests."""
    client = connect(url)
    client.flushdb()
    client.close()
    close_connection()
