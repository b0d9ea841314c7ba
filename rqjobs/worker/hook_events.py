"""Makes the events for hooks, from claimed jobs and from RQ's jobs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from rq.job import Job

from rqjobs.broker.attempts import read_history, reason_of
from rqjobs.broker.rq_schema import attempt_number, attempts_of, decode_data, with_zone
from rqjobs.errors import InvalidJob, UnknownQueue
from rqjobs.hooks import JobEvent, Kind
from rqjobs.jobs import JobModel
from rqjobs.policies import base_queue, get_policy
from rqjobs.worker.claimed_job import ClaimedJob
from rqjobs.worker.outcomes import Dead, Done, Outcome, Retry


def kind_of(outcome: Outcome | None) -> Kind | None:
    """Returns the kind of event of an outcome; None if the job has not run, or RQ's methods have written it."""
    if isinstance(outcome, Done):
        return "done"
    if isinstance(outcome, Retry):
        return "retry"
    return "dead" if isinstance(outcome, Dead) else None


def begun(job: ClaimedJob, started: float) -> JobEvent:
    """Returns the event of a run that began at ``started``, in Unix time."""
    return _event("start", job, started_at=_moment(started))


def ended(kind: Kind, job: ClaimedJob) -> JobEvent:
    """Returns the event of a job with an outcome of :func:`kind_of`."""
    outcome = job.outcome
    times = {"started_at": _moment(outcome.started), "ended_at": _moment(outcome.ended)} if outcome is not None else {}
    if isinstance(outcome, Done):
        return _event(kind, job, **times, result=json.loads(outcome.result) if outcome.result else None)
    assert isinstance(outcome, Retry | Dead)
    retry_at = _moment(outcome.ended + outcome.wait) if isinstance(outcome, Retry) else None
    return _event(kind, job, **times, error=reason_of(outcome.error), traceback=outcome.error, retry_at=retry_at)


def event_of_rq_job(
    kind: Kind, job: Job, *, attempt: int | None = None, result: Any = None, error: str = ""
) -> JobEvent:
    """Returns the event of a job that RQ's own methods have run, or are about to run.

    Args:
        kind: the kind of the event.
        job: RQ's job object.
        attempt: the number of the attempt; None for the current one of the object.
        result: the return value of its function.
        error: the traceback.
    """
    running, now = kind == "start", datetime.now(UTC)
    return JobEvent(
        kind=kind,
        job_id=job.id,
        queue=base_queue(job.origin),
        lane=job.origin,
        attempt=attempt or attempt_number(job),
        attempts=attempts_of(job),
        job=_model(job),
        enqueued_at=with_zone(job.created_at),
        started_at=with_zone(job.started_at) if job.started_at else now if running else None,
        ended_at=None if running else with_zone(job.ended_at or now),
        result=result,
        error=reason_of(error) if error else None,
        traceback=error or None,
    )


def event_of_dead_job(job: Job) -> JobEvent:
    """Returns the event of a job that is dead because the worker that ran it died; its error is in its history."""
    last = read_history(job)[-1:]
    return event_of_rq_job("dead", job, error=(last[0].traceback or last[0].error or "") if last else "")


def _event(kind: Kind, job: ClaimedJob, **more: Any) -> JobEvent:
    return JobEvent(
        kind=kind,
        job_id=job.job_id,
        queue=base_queue(job.lane),
        lane=job.lane,
        attempt=job.number,
        attempts=max(job.attempts, job.number),
        job=job.model,
        enqueued_at=job.attempt.enqueued_at if job.attempt is not None else None,
        **more,
    )


def _model(job: Job) -> JobModel | None:
    payload = None if getattr(job, "forged", False) else decode_data(job.data)
    try:
        return get_policy(base_queue(job.origin)).job_type.parse(payload) if payload is not None else None
    except (InvalidJob, UnknownQueue):
        return None


def _moment(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
