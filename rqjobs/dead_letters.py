"""The dead letters: RQ's FailedJobRegistry of each queue, listed, explained, requeued, purged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import redis
from rq.job import Job
from rq.utils import as_text

from rqjobs.connection import get_connection
from rqjobs.errors import InvalidJob, JobNotFound
from rqjobs.history import summarize
from rqjobs.layout import (
    SERIALIZER,
    RegisteredJob,
    attempts_of,
    encode_data,
    fetch_job,
    job_key,
    key,
    pack_data,
    payload_of,
    run_script,
)
from rqjobs.masking import mask, unmask
from rqjobs.queues import base_queue, get_policy, lanes, policies
from rqjobs.settings import get_settings

_PAGE = 200
_UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """One job that will not be tried again by itself."""

    job_id: str
    queue: str
    """The lane it came from."""
    label: str
    """What the job is, in a line."""
    reason: str
    """Its last error, in a line."""
    attempts: int
    """How often it has run."""
    failed_at: datetime | None
    payload: dict[str, Any] | None
    """The job's fields, its secrets hidden (rqjobs.masking); None for a plain RQ job."""


def dead_letters(
    queue: str | None = None,
    reason: str | None = None,
    *,
    scan: int | None = None,
    connection: redis.Redis | None = None,
) -> Iterator[DeadLetter]:
    """The dead letters of ``queue`` (all queues by default), newest first in each queue.

    Args:
        queue: a queue or a lane.
        reason: only those whose last error contains this text, in any case.
        scan: look at no more than so many.
        connection: another Redis than that of REDIS_URL.

    Raises:
        UnknownQueue: there is no such queue.
    """
    client = connection or get_connection()
    for page in dead_ids(queue, reason, scan=scan, connection=client):
        yield from _letters(page, client)


def dead_ids(
    queue: str | None = None,
    reason: str | None = None,
    *,
    scan: int | None = None,
    connection: redis.Redis | None = None,
) -> Iterator[list[str]]:
    """The ids of the dead letters that :func:`dead_letters` answers, a page at a time, in a fifth of its time."""
    client = connection or get_connection()
    left = float("inf") if scan is None else scan
    for lane in _lanes(queue):
        registry, start = key("failed", lane), 0
        while left > 0 and (ids := client.zrevrange(registry, start, start + int(min(left, _PAGE)) - 1)):
            start += _PAGE
            left -= _PAGE
            page = [as_text(job_id) for job_id in cast("list[bytes]", ids)]
            if reason is not None:
                errors = [past.error or _UNKNOWN for past in summarize(page, client)]
                page = [job_id for job_id, error in zip(page, errors, strict=True) if reason.lower() in error.lower()]
            yield page


def count(queue: str | None = None, *, connection: redis.Redis | None = None) -> int:
    """How many dead letters ``queue`` has, or all queues.

    Raises:
        UnknownQueue: there is no such queue.
    """
    with (connection or get_connection()).pipeline(transaction=False) as pipeline:
        for lane in _lanes(queue):
            pipeline.zcard(key("failed", lane))
        return sum(pipeline.execute())


def dead_letter(job_id: str, *, connection: redis.Redis | None = None) -> DeadLetter:
    """The dead letter of this id.

    Raises:
        JobNotFound: no dead job has it.
    """
    client = connection or get_connection()
    job = fetch_job(job_id, client)
    if client.zscore(key("failed", job.origin), job_id) is None:
        raise JobNotFound(job_id)
    return _letters([job_id], client)[0]


def requeue(job_ids: Iterable[str], *, connection: redis.Redis | None = None) -> list[str]:
    """Puts dead jobs back into their queues, with all their attempts; answers the ids that were.

    RQ's own requeue would leave them without retries. An id that is not dead is left alone.
    """
    client = connection or get_connection()
    done: list[str] = []
    for jobs in _fetch(job_ids, client):
        words: list[Any] = [datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")]
        for job in jobs:
            retries = attempts_of(job) - 1
            words += (job.id, job.origin, retries or "")
        done += [as_text(job_id) for job_id in run_script("requeue", client, words)]
    return done


def purge(job_ids: Iterable[str], *, connection: redis.Redis | None = None) -> list[str]:
    """Deletes dead jobs for good; answers the ids that were. An id that is not dead is left alone."""
    client = connection or get_connection()
    ids = list(dict.fromkeys(job_ids))
    done: list[str] = []
    for start in range(0, len(ids), _PAGE):
        page = ids[start : start + _PAGE]
        with client.pipeline(transaction=False) as pipeline:
            for job_id in page:
                pipeline.hget(job_key(job_id), "origin")
            origins = pipeline.execute()
        words = ["failed"]
        words += [word for pair in zip(page, origins, strict=True) if pair[1] is not None for word in pair]
        done += [as_text(job_id) for job_id in run_script("purge", client, words)]
    return done


def replace_payload(job_id: str, payload: Any, *, connection: redis.Redis | None = None) -> None:
    """Gives a dead job other fields, checked as at its enqueueing; it stays dead until it is requeued.

    What ``payload`` leaves hidden keeps its value.

    Raises:
        InvalidJob: with every fault named; nothing was changed.
        JobNotFound: no dead job of ours has this id.
    """
    client = connection or get_connection()
    letter = dead_letter(job_id, connection=client)
    known = payload_of(fetch_job(job_id, client))
    if known is None:
        raise JobNotFound(job_id)
    policy = get_policy(letter.queue)
    try:
        job = policy.job_type.parse(unmask(payload, known[1]))
    except InvalidJob:
        raise
    except ValueError as error:
        raise InvalidJob(policy.job_type.__name__, [str(error)]) from None
    data = encode_data(policy.name, job.dump_json())
    limit = get_settings().rqjobs_max_payload
    if len(data) > limit:
        raise InvalidJob(type(job).__name__, [f"the job has {len(data)} bytes; RQJOBS_MAX_PAYLOAD allows {limit}"])
    client.hset(job_key(job_id), mapping={"data": pack_data(data), "description": job.label()})


def _lanes(queue: str | None) -> list[str]:
    if queue is None:
        return [lane for policy in policies() for lane in lanes(policy.name)]
    name = get_policy(queue).name
    return [queue] if base_queue(queue) != queue else lanes(name)


def _fetch(job_ids: Iterable[str], client: redis.Redis) -> Iterator[Sequence[Job]]:
    ids = list(dict.fromkeys(job_ids))
    for start in range(0, len(ids), _PAGE):
        page = ids[start : start + _PAGE]
        jobs = RegisteredJob.fetch_many(page, connection=client, serializer=SERIALIZER)
        yield [job for job in jobs if job is not None]


def _letters(ids: list[str], client: redis.Redis) -> list[DeadLetter]:
    jobs = [job for page in _fetch(ids, client) for job in page]
    letters = []
    for job, past in zip(jobs, summarize([job.id for job in jobs], client), strict=True):
        known = payload_of(job)
        letters.append(
            DeadLetter(
                job_id=job.id,
                queue=job.origin,
                label=job.description or job.func_name or job.id,
                reason=past.error or _UNKNOWN,
                attempts=past.runs,
                failed_at=job.ended_at,
                payload=mask(known[1]) if known else None,
            )
        )
    return letters
