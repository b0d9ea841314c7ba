"""``--engine rq``: RQ's own forking worker under our policies. Slow, and known to the letter."""

from __future__ import annotations

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
from rqjobs.config.encryption import key_names
from rqjobs.config.logs import event
from rqjobs.config.settings import get_settings
from rqjobs.dead_letters.fingerprint import fingerprint_of
from rqjobs.dead_letters.index import add, sync
from rqjobs.monitoring.metrics import Outcome, Sample, record
from rqjobs.outbox.thread import Relay
from rqjobs.policies import base_queue, get_policy, import_registrations, lanes_in_order, load, policies
from rqjobs.worker import protocol
from rqjobs.worker.claimed_job import RESULT_TTL
from rqjobs.worker.dependents import ReleasingQueue

WORKER_TTL = 30
"""RQ forgets a worker that has said nothing for 60 s longer than this. Its own 420 s would count one that was killed
among the living for eight minutes; we beat every 5 s, or 30 s beside a job in a work horse."""

_ending = threading.local()  # in each thread: what the run is counted as that RQ's methods write just now

_OUTCOMES: dict[str, Outcome] = {"completed": "done", "retried": "retried", "failed": "dead"}


class StockWorker(Worker):
    """RQ's worker, limited to registered functions, honouring pauses, trimming what is kept, counting totals."""

    job_class = RegisteredJob
    queue_class = ReleasingQueue
    log_result_lifespan = False
    log_job_description = False
    relay: Relay | None = None
    slots: Mapping[str, int] = MappingProxyType({})
    """How many jobs of each queue run at once; empty where one of any queue does."""

    @property
    def dequeue_timeout(self) -> int:
        """Short, so that a pause is noticed soon."""
        return 2

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """RQ calls this before each wait for jobs: the moment to look which queues are paused."""
        super().heartbeat(timeout, pipeline)
        if pipeline is None and not self.is_horse:
            if self.relay is not None:
                self.relay.tick()
            paused = {as_text(name) for name in self.connection.smembers(keys.PAUSED)}
            # What waits for a dependency is looked at when a trial is due; then each job finds out whether it may run.
            held = {each.queue for each in dependencies_away(self.connection) if not each.scope and not each.due}
            open_queues = [queue for queue in self.queues if base_queue(queue.name) not in paused | held]
            nothing = Queue(f"{keys.PREFIX}-nothing", connection=self.connection, serializer=SERIALIZER)
            self._ordered_queues = open_queues or [nothing]

    def register_birth(self) -> None:
        """As RQ does, with what doctor and the dashboard say of our workers."""
        super().register_birth()
        ours: dict[Any, Any] = {"rqjobs_version": rqjobs_version(), "rqjobs_slots": json.dumps(dict(self.slots))}
        ours["rqjobs_keys"] = " ".join(key_names())
        self.connection.hset(self.key, mapping=ours)

    def run_maintenance_tasks(self) -> None:
        """As RQ does, and the index of dead letters beside it."""
        super().run_maintenance_tasks()
        sync([queue.name for queue in self.queues], self.connection, upkeep=True)

    def perform_job(self, job: Job, queue: Queue, execution: Execution) -> bool:
        """Runs the job in its work horse."""
        event(
            logging.INFO, "job started", id=job.id, queue=job.origin, attempt=attempt_number(job), job=job.description
        )
        return super().perform_job(job, queue, execution)

    def handle_job_success(self, job: Job, queue: Queue, started_job_registry: Any, execution: Execution) -> None:
        """A done job: counted, and the oldest kept ones make room."""
        with self._counted("completed", job):
            super().handle_job_success(job, queue, started_job_registry, execution)
        event(
            logging.INFO, "job completed", id=job.id, queue=job.origin, attempt=attempt_number(job), seconds=_took(job)
        )

    def handle_job_failure(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: Any = None,
        exc_string: str = "",
        execution: Execution | None = None,
    ) -> None:
        """A failed run: RQ retries or buries the job; a dead one is counted."""
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
            with suppress(ResponseError):  # keys of another type: no job may fail of the index
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

    def handle_job_retry(
        self, job: Job, queue: Queue, retry: Retry, started_job_registry: Any, execution: Execution
    ) -> None:
        """A run that returned RQ's ``Retry``: it goes back, or is dead when it did so too often."""
        over = bool(job.number_of_retries and job.number_of_retries >= retry.max)
        with self._counted("failed" if over else "retried", job):
            super().handle_job_retry(job, queue, retry, started_job_registry, execution)

    def cleanup_execution(self, job: Job, pipeline: Any, execution: Execution | None = None) -> None:
        """RQ calls this in the transaction that writes how a run has ended: what we count is in it as well."""
        super().cleanup_execution(job, pipeline, execution)
        what = getattr(_ending, "what", None)
        if what is not None:
            moves = job.id if what == "failed" else ""
            # Not by its hash: a script that Redis does not have any more must not break the transaction.
            pipeline.eval(load_script("ended").script, 0, *protocol.ended(job.origin, what, moves))

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """RQ's chain of exception handlers: one that returns False keeps those after it from being called.

        RQ would log the arguments here, and with them payloads and secrets; we log in handle_job_failure.
        """
        try:
            call_exception_handlers(self._exc_handlers, job, *exc_info)
        except Exception:  # the job has its outcome all the same
            logging.getLogger("rqjobs").exception("an exception handler failed")

    @contextmanager
    def _counted(self, what: str, job: Job) -> Iterator[None]:
        """Counts the run in RQ's transaction; then the oldest kept jobs make room, and it is measured."""
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
    """Runs RQ's worker over the lanes of ``queues`` (all by default) until it is told to stop.

    Args:
        queues: names of queues; their lanes are claimed in priority order.
        burst: end when nothing waits and no retry is due.
        max_jobs: end after so many jobs.
        exception_handlers: RQ's, called with the job and the exception's type, value and traceback.

    Returns:
        The exit code: 0.
    """
    connection = connect()
    import_registrations()
    served = list(queues) if queues else [policy.name for policy in policies()]
    for name in served:
        load(get_policy(name).processor)  # before the first fork, so that no job pays for it
    names = lanes_in_order(served)
    worker = StockWorker(
        names,
        connection=connection,
        serializer=SERIALIZER,
        default_result_ttl=RESULT_TTL,
        worker_ttl=WORKER_TTL,
        exception_handlers=list(exception_handlers),
    )
    worker.relay = Relay()  # between jobs, not in a thread: RQ forks
    event(logging.INFO, "worker started", name=worker.name, engine="rq", queues=",".join(names))
    while True:
        worker.work(burst=burst, with_scheduler=True, max_jobs=max_jobs, logging_level="WARNING")
        if not burst or worker._stop_requested or not _due(connection, names):  # noqa: SLF001
            break
    event(logging.INFO, "worker stopped", name=worker.name)
    return 0


def _due(connection: Redis, names: Sequence[str]) -> bool:
    """Whether a delayed job has become due meanwhile, or one waits."""
    with connection.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.zcount(key("scheduled", name), 0, time.time())
            pipeline.llen(key("queue", name))
        return any(pipeline.execute())
