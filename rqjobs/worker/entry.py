"""The function in every job of rqjobs. Any RQ worker can call it, also that of ``rq worker``."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from rq.job import Job, get_current_job

from rqjobs.attempt import Attempt
from rqjobs.broker import holds
from rqjobs.broker.attempts import KEPT_ATTEMPTS, retried_fields
from rqjobs.broker.connection import PASSING
from rqjobs.broker.rq_schema import RegisteredJob, attempt_number, attempts_of, results_key
from rqjobs.errors import RetryLater
from rqjobs.policies import QueuePolicy, import_registrations
from rqjobs.worker.execution import resolve, run
from rqjobs.worker.failures import Failure, read_failure


def perform(queue: str, payload: dict[str, Any]) -> Any:
    """Runs the processor of ``queue`` on ``payload`` and returns its result.

    RQ knows two outcomes, returned and raised. So PermanentFailure and RetryLater are translated to attributes of the
    job object, which RQ's worker reads afterwards.
    """
    job = get_current_job()
    if job is None:
        raise RuntimeError("perform() runs inside an RQ worker; use rqjobs.testing to run a job inline")
    import_registrations()
    wait, trial = holds.start(job.connection, queue, job.id)
    if wait > 0:
        _delay(job, wait)
        raise RetryLater(timedelta(seconds=wait), "its queue waits for a dependency", counts=False)
    how: Literal["done", "quiet"] = "quiet"
    policy: QueuePolicy | None = None
    try:
        policy, model = resolve(queue, payload)
        result = run(policy, model, _attempt(job))
        how = "done"
    except Exception as error:
        failure = read_failure(error, policy)
        away = failure.unavailable
        wait = holds.report_away(job.connection, queue, job.id, away) if away is not None else -1.0
        if wait >= 0:
            _delay(job, wait)
            raise
        _apply(failure, job)
        if job.should_retry:
            _record(job)
        raise
    finally:
        if trial:
            holds.end(job.connection, queue, job.id, how)
    return result


def _delay(job: Job, seconds: float) -> None:
    """Makes RQ retry the job in ``seconds`` without counting an attempt, because a dependency is unavailable."""
    job.retries_left = (job.retries_left or 0) + 1  # RQ subtracts one
    job.get_retry_interval = lambda: max(seconds, 0.1)  # type: ignore[method-assign, assignment, return-value]
    if isinstance(job, RegisteredJob):
        job.held = True


def _attempt(job: Job) -> Attempt:
    def report(progress: Mapping[str, object]) -> None:
        job.meta["progress"] = dict(progress)
        with contextlib.suppress(*PASSING):
            job.save_meta()

    return Attempt(
        job_id=job.id,
        queue=job.origin,
        number=attempt_number(job),
        of=attempts_of(job),
        enqueued_at=job.created_at,
        timeout=timedelta(seconds=job.timeout or 180),
        report=report,
    )


def _apply(failure: Failure, job: Job) -> None:
    """Sets the attributes of this job object by which RQ's worker decides.

    They are ``retries_left`` and ``get_retry_interval()``.
    """
    if failure.permanent:
        job.retries_left = 0
    elif not failure.counts:
        job.retries_left = (job.retries_left or 0) + 1  # RQ subtracts one
    if (seconds := failure.wait) is not None:
        job.get_retry_interval = lambda: seconds  # type: ignore[method-assign, assignment, return-value]


def _record(job: Job) -> None:
    """Adds the failed run to the job's history, because RQ does not record runs that it retries."""
    started = job.started_at or datetime.now(UTC)
    fields = retried_fields(
        traceback.format_exc(),
        attempt=attempt_number(job),
        worker=job.worker_name or "",
        execution_id=None,
        started=started.timestamp(),
        ended=datetime.now(UTC).timestamp(),
    )
    job.connection.xadd(results_key(job.id), fields, maxlen=KEPT_ATTEMPTS)
