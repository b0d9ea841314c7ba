"""``--engine rq``: RQ's own forking worker with our policies; slow, for comparison and as a fallback."""

from __future__ import annotations

import functools
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from types import MappingProxyType
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError
from rq import Queue, Retry, Worker
from rq.executions import Execution
from rq.job import Job
from rq.job_lifecycle import call_exception_handlers
from rq.utils import as_text

from rqjobs.broker import keys
from rqjobs.broker.attempts import reason_of
from rqjobs.broker.connection import connect
from rqjobs.broker.groups import ungroup
from rqjobs.broker.holds import dependencies_away
from rqjobs.broker.rq_schema import (
    SERIALIZER,
    RegisteredJob,
    attempt_number,
    attempts_of,
    decode_data,
    key,
    rqjobs_version,
    run_script,
)
from rqjobs.broker.scripts import load_script
from rqjobs.broker.unreadable import is_wrong_type
from rqjobs.config.encryption import key_names
from rqjobs.config.logs import event
from rqjobs.config.settings import get_settings
from rqjobs.dead_letters.fingerprint import fingerprint_of
from rqjobs.dead_letters.index import add, sync
from rqjobs.errors import InvalidSettings
from rqjobs.hooks import Kind
from rqjobs.monitoring.metrics import Outcome, Sample, record
from rqjobs.outbox.thread import Relay
from rqjobs.policies import base_queue, get_policy, import_registrations, lanes_in_order, load, policies
from rqjobs.worker import protocol
from rqjobs.worker.claimed_job import RESULT_TTL
from rqjobs.worker.dependents import ReleasingQueue
from rqjobs.worker.hook_events import event_of_rq_job
from rqjobs.worker.hook_threads import HookThreads

WORKER_TTL = 30
"""Seconds without a heartbeat, plus 60, after which RQ drops a worker. With RQ's default of 420 s a killed worker would
be listed for eight minutes. Heartbeats come every 5 s, or every 30 s while a job runs in a work horse."""

_ending = threading.local()  # per thread: the total under which the run that RQ's methods are writing is counted

_OUTCOMES: dict[str, Outcome] = {"completed": "done", "retried": "retried", "failed": "dead"}


class StockWorker(Worker):
    """RQ's worker with registered functions only; it respects paused queues, trims kept jobs, and counts totals."""

    job_class = RegisteredJob
    queue_class = ReleasingQueue
    log_result_lifespan = False
    log_job_description = False
    relay: Relay | None = None
    slots: Mapping[str, int] = MappingProxyType({})
    """The number of jobs of each queue that run at once; empty for a worker that runs one job at a time."""

    @functools.cached_property
    def hooks(self) -> HookThreads:
        """The app's hooks, constructed at the first use, after the app's modules are imported."""
        return HookThreads()

    def call_hooks(
        self, kind: Kind, job: Job, *, attempt: int | None = None, result: Any = None, error: str = ""
    ) -> None:
        """Calls the hooks for an outcome that RQ's methods have written, and waits at most 5 s for them.

        The process of a job ends afterwards, and with it its threads.
        """
        if self.hooks.wants(kind):
            # Read now, because RQ changes the job object afterwards.
            read = event_of_rq_job(kind, job, attempt=attempt, result=result, error=error)
            self.hooks.put(kind, read.queue, lambda: read)
            self.wait_for_hooks()

    def wait_for_hooks(self) -> None:
        """Waits for the hooks of all queued events."""
        self.hooks.close()

    @property
    def dequeue_timeout(self) -> int:
        """Seconds that it waits for jobs; short, so that it notices a pause soon."""
        return 2

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """Checks which queues are paused; RQ calls this before each wait for jobs."""
        super().heartbeat(timeout, pipeline)
        if pipeline is None and not self.is_horse:
            if self.relay is not None:
                self.relay.tick()
                ungroup(self.connection, self.queue_names())
            paused = {as_text(name) for name in self.connection.smembers(keys.PAUSED)}
            # A held queue is served when a trial is due; each job then checks whether it may run.
            held = {each.queue for each in dependencies_away(self.connection) if not each.scope and not each.due}
            open_queues = [queue for queue in self.queues if base_queue(queue.name) not in paused | held]
            nothing = Queue(f"{keys.PREFIX}-nothing", connection=self.connection, serializer=SERIALIZER)
            self._ordered_queues = open_queues or [nothing]

    def register_birth(self) -> None:
        """Registers the worker as RQ does, with additional fields for doctor and the dashboard."""
        with _named_in_the_log():
            super().register_birth()
        ours: dict[Any, Any] = {"rqjobs_version": rqjobs_version(), "rqjobs_slots": json.dumps(dict(self.slots))}
        ours["rqjobs_keys"] = " ".join(key_names())
        self.connection.hset(self.key, mapping=ours)

    def register_death(self) -> None:
        """Registers the end of the worker as RQ does."""
        with _named_in_the_log():
            super().register_death()

    def run_maintenance_tasks(self) -> None:
        """Runs RQ's maintenance, and updates the index of dead letters."""
        super().run_maintenance_tasks()
        sync([queue.name for queue in self.queues], self.connection, upkeep=True)

    def perform_job(self, job: Job, queue: Queue, execution: Execution) -> bool:
        """Runs the job in its work horse; logs its start."""
        event(
            logging.INFO, "job started", id=job.id, queue=job.origin, attempt=attempt_number(job), job=job.description
        )
        self.call_hooks("start", job)
        return super().perform_job(job, queue, execution)

    def handle_job_success(self, job: Job, queue: Queue, started_job_registry: Any, execution: Execution) -> None:
        """Counts a done job, and trims the kept jobs."""
        with self._counted("completed", job):
            super().handle_job_success(job, queue, started_job_registry, execution)
        event(
            logging.INFO, "job completed", id=job.id, queue=job.origin, attempt=attempt_number(job), seconds=_took(job)
        )
        self.call_hooks("done", job, result=job._result)  # noqa: SLF001

    def handle_job_failure(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: Any = None,
        exc_string: str = "",
        execution: Execution | None = None,
    ) -> None:
        """Counts a failed run, which RQ retries or makes dead."""
        number, retries = attempt_number(job), job.should_retry and self._stopped_job_id != job.id
        held = retries and getattr(job, "held", False)
        with nullcontext() if held else self._counted("retried" if retries else "failed", job):
            super().handle_job_failure(job, queue, started_job_registry, exc_string, execution)
        if held:
            event(logging.INFO, "job held", id=job.id, queue=job.origin, why=reason_of(exc_string))
            return
        if not retries:
            reason = reason_of(exc_string)
            payload = None if getattr(job, "forged", False) else decode_data(job.data)
            fingerprint = fingerprint_of(base_queue(job.origin), reason, payload)
            with suppress(ResponseError):  # a key of the wrong type: the index must not fail a job
                add(job.origin, [(job.id, fingerprint, reason)], self.connection)
        event(
            logging.WARNING if retries else logging.ERROR,
            "job failed",
            id=job.id,
            queue=job.origin,
            attempt=number,
            of=attempts_of(job),
            error=reason_of(exc_string),
            seconds=_took(job),
            next="retry" if retries else "dead letter",
        )
        self.call_hooks("retry" if retries else "dead", job, attempt=number, error=exc_string)

    def handle_job_retry(
        self, job: Job, queue: Queue, retry: Retry, started_job_registry: Any, execution: Execution
    ) -> None:
        """Counts a run that returned RQ's ``Retry``: the job runs again, or is dead after too many of them."""
        over = bool(job.number_of_retries and job.number_of_retries >= retry.max)
        number = attempt_number(job)
        with self._counted("failed" if over else "retried", job):
            super().handle_job_retry(job, queue, retry, started_job_registry, execution)
        self.call_hooks("dead" if over else "retry", job, attempt=number)

    def cleanup_execution(self, job: Job, pipeline: Any, execution: Execution | None = None) -> None:
        """Adds our totals to the transaction in which RQ writes the outcome of a run."""
        super().cleanup_execution(job, pipeline, execution)
        what = getattr(_ending, "what", None)
        if what is not None:
            moves = job.id if what == "failed" else ""
            # EVAL, not EVALSHA: a script that Redis has lost must not fail the transaction.
            words = protocol.ended(job.origin, what, moves, getattr(job, "batch", ""), job.id)
            pipeline.eval(load_script("ended").script, 0, *words)

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """Calls the exception handlers; if one returns False, those after it are not called.

        RQ's method also logs the arguments, and with them payloads and secrets; we log in handle_job_failure instead.
        """
        try:
            call_exception_handlers(self._exc_handlers, job, *exc_info)
        except Exception:  # it must not change the job's outcome
            logging.getLogger("rqjobs").exception("an exception handler failed")

    @contextmanager
    def _counted(self, what: str, job: Job) -> Iterator[None]:
        """Counts the run in RQ's transaction; afterwards trims the kept jobs and records the metrics."""
        _ending.what = what
        try:
            yield
        finally:
            _ending.what = None
        settings = get_settings()
        done = what == "completed"
        keep = settings.rqjobs_keep_completed if done else settings.rqjobs_keep_failed
        words = protocol.trim("finished" if done else "failed", job.origin, keep, time.time())
        run_script("trim", self.connection, words)
        sample = Sample(job.origin, _OUTCOMES[what], _took(job) or 0.0, _waited(job))
        record([sample], self.connection)


def _waited(job: Job) -> float | None:
    return (job.started_at - job.enqueued_at).total_seconds() if job.started_at and job.enqueued_at else None


def _took(job: Job) -> float | None:
    return (job.ended_at - job.started_at).total_seconds() if job.started_at and job.ended_at else None


def run_stock_worker(
    queues: Sequence[str] | None,
    *,
    burst: bool = False,
    max_jobs: int | None = None,
    exception_handlers: Sequence[Callable[..., Any]] = (),
) -> int:
    """Runs RQ's worker on the lanes of ``queues`` (by default all) until it is stopped.

    Args:
        queues: names of queues; their lanes are claimed in the order of priority.
        burst: end when no job waits and no retry is due.
        max_jobs: end after this number of jobs.
        exception_handlers: RQ's, called with the job and the exception's type, value and traceback.

    Returns:
        The exit code: 0.
    """
    connection = connect()
    import_registrations()
    served = list(queues) if queues else [policy.name for policy in policies()]
    _refuse_group_limits(served)
    for name in served:
        load(get_policy(name).processor)  # before the first fork, so that the import is not repeated in each job
    names = lanes_in_order(served)
    worker = StockWorker(
        names,
        connection=connection,
        serializer=SERIALIZER,
        default_result_ttl=RESULT_TTL,
        worker_ttl=WORKER_TTL,
        exception_handlers=list(exception_handlers),
    )
    worker.relay = Relay()  # called between jobs instead of in a thread, because RQ forks
    event(logging.INFO, "worker started", name=worker.name, engine="rq", queues=",".join(names))
    while True:
        worker.work(burst=burst, with_scheduler=True, max_jobs=max_jobs, logging_level="WARNING")
        if not burst or worker._stop_requested or not _due(connection, names):  # noqa: SLF001
            break
    event(logging.INFO, "worker stopped", name=worker.name)
    return 0


def _refuse_group_limits(served: Sequence[str]) -> None:
    """Refuses queues with limits of groups: RQ's worker claims from RQ's lists, and would exceed them.

    Raises:
        InvalidSettings: a queue has such limits; the message names it.
    """
    limited = [name for name in served if get_policy(name).limits_groups]
    if limited:
        names = ", ".join(limited)
        raise InvalidSettings([f"--engine rq: it cannot keep the limits of groups of {names}; use the engine threads"])


def _due(connection: Redis, names: Sequence[str]) -> bool:
    """Returns whether a delayed job is due, or a job waits."""
    with connection.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.zcount(key("scheduled", name), 0, time.time())
            pipeline.llen(key("queue", name))
            pipeline.zcard(keys.group_waiting(name))
        return any(pipeline.execute())


@contextmanager
def _named_in_the_log() -> Iterator[None]:
    """Logs, instead of raising, that the list of workers has the wrong type; Redis has run the other commands."""
    try:
        yield
    except ResponseError as error:
        if not is_wrong_type(error):
            raise
        event(logging.ERROR, "a key is of another type: this worker is not listed", error=str(error))
