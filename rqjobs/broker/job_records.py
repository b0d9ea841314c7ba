"""Reads jobs for lists and pages. A record that cannot be read is shown as such, and the others are still listed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

import redis
from rq.exceptions import NoSuchJobError

from rqjobs.broker.rq_schema import ENDED, SERIALIZER, RegisteredJob, job_key, key

_LONGEST_REPORT = 500  # the most characters of a progress report


class Record(NamedTuple):
    """One job of a list, as read from Redis."""

    job_id: str
    """The id as text; bytes that are not UTF-8 are replaced."""
    job: RegisteredJob | None
    """The job; None if it does not exist any more, or its record cannot be read."""
    fault: str | None = None
    """Why the record cannot be read; None if it can, or if it does not exist."""


def read_records(job_ids: Iterable[bytes | str], connection: redis.Redis) -> list[Record]:
    """Returns the records of these jobs in the same order, in one round trip."""
    ids = list(job_ids)
    if not ids:
        return []
    with connection.pipeline(transaction=False) as pipeline:
        for job_id in ids:
            pipeline.hgetall(_key(job_id))
        answers = pipeline.execute(raise_on_error=False)
    return [_record(job_id, raw, connection) for job_id, raw in zip(ids, answers, strict=True)]


def id_text(job_id: bytes | str) -> str:
    """Returns a job id from a list of Redis as text."""
    return job_id.decode(errors="replace") if isinstance(job_id, bytes) else job_id


def progress_of(meta: object) -> dict[str, Any] | None:
    """Returns the progress that a job has reported in its meta; None if it has reported none."""
    report = meta.get("progress") if isinstance(meta, dict) else None
    return report if isinstance(report, dict) and report else None


def describe_progress(report: dict[str, Any]) -> str:
    """Returns reported progress as text: ``500 of 1,200 rows, 41.7 %``; a report of unknown form as it is."""
    rows, total, percent = report.get("rows"), report.get("of"), report.get("percent")
    if not isinstance(rows, int):
        others = [f"{name} {value}" for name, value in report.items() if name != "percent"]
        return ", ".join([*others, *([f"{percent} %"] if percent is not None else [])])[:_LONGEST_REPORT]
    if not isinstance(total, int):
        return f"{rows:,} rows"
    return f"{rows:,} of {total:,} rows, {percent or 0} %"


def _key(job_id: bytes | str) -> bytes:
    return key("job", "").encode() + (job_id if isinstance(job_id, bytes) else job_id.encode(errors="surrogatepass"))


def _record(job_id: bytes | str, raw: object, connection: redis.Redis) -> Record:
    text = id_text(job_id)
    if not isinstance(raw, dict):
        return Record(text, None, f"its record cannot be read: {raw}")
    if not raw:
        return Record(text, None)
    try:
        job = RegisteredJob(text, connection=connection, serializer=SERIALIZER)
        job.restore(raw)
    except NoSuchJobError:
        return Record(text, None, "its record cannot be read: it has no data")
    except Exception as error:  # noqa: BLE001  # RQ's reading of a forged record may raise anything
        return Record(text, None, f"its record cannot be read: {' '.join(str(error).split())[:200]}")
    return Record(text, job)


def created_if_unfinished(job_ids: Iterable[str], connection: redis.Redis) -> list[datetime | None]:
    """Returns when each of these jobs was enqueued; None for one that is deleted, ended, or unreadable."""
    ids = list(job_ids)
    if not ids:
        return []
    with connection.pipeline(transaction=False) as pipeline:
        for job_id in ids:
            pipeline.hmget(job_key(job_id), "created_at", "status")
        return [_created_if_unfinished(fields) for fields in pipeline.execute(raise_on_error=False)]


def _created_if_unfinished(fields: Any) -> datetime | None:
    if not isinstance(fields, list) or None in fields:  # an error, such as a key of the wrong type
        return None
    created_at, status = fields
    try:
        return None if status.decode() in ENDED else datetime.fromisoformat(created_at.decode())
    except ValueError:
        return None
