"""The history of a job: every attempt with its time, duration and error, read from RQ's results stream."""

from __future__ import annotations

import re
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

import redis
from rq.job import Job
from rq.results import Result
from rq.utils import as_text

from rqjobs.broker.connection import client_of, get_connection
from rqjobs.broker.rq_schema import SERIALIZER, UNREADABLE, inflate, results_key
from rqjobs.security.masking import mask_text

KEPT_ATTEMPTS = 100
"""The number of results kept for each job. RQ itself would keep 10."""

Outcome = Literal["done", "retried", "failed", "stopped"]

_OUTCOMES: dict[Result.Type, Outcome] = {
    Result.Type.SUCCESSFUL: "done",
    Result.Type.RETRIED: "retried",
    Result.Type.FAILED: "failed",
    Result.Type.STOPPED: "stopped",
    Result.Type.MAX_RETRIES_EXCEEDED: "failed",
}
_EXCEPTION_LINE = re.compile(r"^([A-Za-z_][\w.]*)(?:: (.*))?$")
_OWN_WORDS = ("PermanentFailure", "RetryLater")
_LONGEST_ERROR = 4 * 2**20  # the most bytes of an error that are inflated


@dataclass(frozen=True, kw_only=True)
class AttemptRecord:
    """One run of a job: its start, duration, outcome and error."""

    outcome: Outcome
    started_at: datetime | None
    ended_at: datetime | None
    error: str | None
    """The error in one line; None for a run that was done."""
    traceback: str | None
    worker: str
    result: Any = None
    """The return value of a run that was done."""

    @property
    def duration(self) -> timedelta | None:
        """The duration of the run; None if its start or end is unknown."""
        return self.ended_at - self.started_at if self.started_at and self.ended_at else None


_UNREADABLE_ATTEMPT = AttemptRecord(
    outcome="failed", started_at=None, ended_at=None, error=UNREADABLE, traceback=None, worker="?"
)


def reason_of(exc_string: str | None) -> str:
    """Returns the error line of a traceback, such as ``ConnectionError: refused``, with secrets masked."""
    return mask_text(_last_line(exc_string))


def _last_line(exc_string: str | None) -> str:
    for line in reversed((exc_string or "").strip().splitlines()):
        if (match := _EXCEPTION_LINE.match(line)) and (
            match[2] is not None or "." in match[1] or match[1][0].isupper()
        ):
            name = match[1].rpartition(".")[2]
            message = match[2] or ""
            return message if name in _OWN_WORDS else f"{name}: {message}".removesuffix(": ")
    return (exc_string or "unknown").strip().splitlines()[-1] if (exc_string or "").strip() else "unknown"


def read_history(job: Job) -> list[AttemptRecord]:
    """Returns all kept attempts of ``job``, oldest first."""
    try:
        entries: Any = job.connection.xrange(results_key(job.id))
    except redis.exceptions.ResponseError:  # a key of another type
        return [_UNREADABLE_ATTEMPT]
    return [_restore(job, as_text(entry_id), fields) for entry_id, fields in entries]


def _restore(job: Job, entry_id: str, fields: dict[bytes, bytes]) -> AttemptRecord:
    try:
        return _record(Result.restore(job.id, entry_id, fields, connection=job.connection, serializer=SERIALIZER))
    except Exception:  # noqa: BLE001  # written by others, such as RQ with pickle: reading it may raise anything
        return replace(_UNREADABLE_ATTEMPT, outcome="failed" if b"exc_string" in fields else "done")


class Summary(NamedTuple):
    """The attempts of one job as a list of jobs shows them."""

    runs: int
    """The number of runs."""
    error: str | None
    """The error of the last run, in one line; None if that run was done, or the job has not run."""


def summarize(job_ids: Sequence[str], connection: redis.Redis) -> list[Summary]:
    """Returns the summary of each job, in one round trip. If a job's results cannot be read, that is its error."""
    with client_of(connection).pipeline(transaction=False) as pipeline:
        for job_id in job_ids:
            pipeline.xlen(results_key(job_id))
            pipeline.xrevrange(results_key(job_id), count=1)
        answers = pipeline.execute(raise_on_error=False)
    return [_summary(runs, latest) for runs, latest in zip(answers[::2], answers[1::2], strict=True)]


def _summary(runs: Any, latest: Any) -> Summary:
    if isinstance(runs, Exception) or isinstance(latest, Exception):  # a key of another type
        return Summary(0, UNREADABLE)
    return Summary(runs, reason_of_entry(latest[0][1]) if latest and b"exc_string" in latest[0][1] else None)


def reason_of_entry(fields: Mapping[bytes, bytes]) -> str:
    """Returns the error line of a raw entry in a results stream."""
    packed = fields.get(b"exc_string")
    if not packed:
        return "unknown"
    try:
        return reason_of(inflate(b64decode(packed), _LONGEST_ERROR).decode(errors="replace"))
    except (ValueError, zlib.error):
        return "unknown"


def _record(result: Result) -> AttemptRecord:
    failed = result.type is not Result.Type.SUCCESSFUL
    return AttemptRecord(
        outcome=_OUTCOMES[result.type],
        started_at=result.execution_started_at,
        ended_at=result.execution_ended_at or result.created_at,
        error=reason_of(result.exc_string) if failed else None,
        traceback=None if result.exc_string is None else mask_text(result.exc_string),
        worker=result.worker_name,
        result=result.return_value,
    )


def retried_fields(
    exc_string: str, *, attempt: int, worker: str, execution_id: str | None, started: float, ended: float
) -> dict[Any, Any]:
    """Returns the results-stream entry of a failed run that will be retried; RQ itself does not record such runs."""
    fields: dict[Any, Any] = {
        "type": Result.Type.RETRIED.value,
        "worker_name": worker,
        "exc_string": b64encode(zlib.compress(exc_string.encode(errors="replace"))).decode(),
        "execution_started_at": started,
        "execution_ended_at": ended,
        "attempt": attempt,
    }
    if execution_id:
        fields["execution_id"] = execution_id
    return fields


def recorded_reasons(job_id: str) -> list[str]:
    """Returns the error line of each recorded attempt of a job, oldest first; "" for attempts that were done.

    Raises:
        RedisUnavailable: Redis does not answer.
    """
    entries: Any = get_connection().xrange(results_key(job_id))
    return [reason_of_entry(fields) for _, fields in entries]
