"""Mails for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from rqjobs.attempt import Attempt
from rqjobs.broker.attempts import retried_fields
from rqjobs.broker.connection import get_connection
from rqjobs.broker.rq_schema import results_key
from rqjobs.jobs import EmailJob

WHEN = datetime(2026, 3, 3, tzinfo=UTC)


def job(**fields: object) -> EmailJob:
    return EmailJob(
        **{"to": "ada@a.example", "subject": "Hello", "template": "welcome", "data": {"name": "Ada"}} | fields
    )


def attempt(job_id: str = "job-1", number: int = 1, enqueued_at: datetime = WHEN, seconds: float = 20) -> Attempt:
    return Attempt(
        job_id=job_id, queue="email", number=number, of=3, enqueued_at=enqueued_at, timeout=timedelta(seconds=seconds)
    )


def bury(failure: Exception) -> None:
    """What a worker writes of the job when it is dead."""
    words = f"rqjobs.errors.{type(failure).__name__}: {failure}"
    fields = retried_fields(words, attempt=1, worker="w", execution_id=None, started=0, ended=0)
    get_connection().xadd(results_key("job-1"), fields)
