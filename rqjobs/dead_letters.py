"""The dead letters: RQ's FailedJobRegistry of each queue, listed, explained, requeued, purged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import redis
from rq.utils import as_text

from rqjobs import dead_index, keys
from rqjobs.connection import get_connection
from rqjobs.dead_groups import forget
from rqjobs.errors import InvalidJob, JobNotFound
from rqjobs.history import summarize
from rqjobs.layout import (
    SERIALIZER,
    RegisteredJob,
    encode_data,
    fetch_job,
    job_key,
    key,
    pack_data,
    payload_of,
    run_script,
)
from rqjobs.masking import mask, unmask
from rqjobs.queues import get_policy, lanes_of
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
        reason: only those whose last error has this text in its first 1,000 characters, in any case.
        scan: look at no more than so many.
        connection: another Redis than that of REDIS_URL.

    Raises:
        UnknownQueue: there is no such queue.
    """
    client = connection or get_connection()
    left = float("inf") if scan is None else scan
    for lane in lanes_of(queue):
        registry, start = key("failed", lane), 0
        meant = set() if reason is None else dead_index.reasons_with(reason, lane, client)
        while left > 0 and (ids := client.zrevrange(registry, start, start + int(min(left, _PAGE)) - 1)):
            start += _PAGE
            left -= _PAGE
            page = [as_text(job_id) for job_id in cast("list[bytes]", ids)]
            if reason is not None:
                page = _of_reason(reason, dead_index.may_have(meant, lane, page, client), client)
            yield from _letters(page, client)


def dead_ids(
    queue: str | None = None,
    reason: str | None = None,
    *,
    exact: bool = True,
    connection: redis.Redis | None = None,
) -> list[str]:
    """The ids of the dead letters of ``queue``, or of all queues, those that died first at the front of each lane.

    Args:
        queue: a queue or a lane.
        reason: only those whose last error has this text in its first 1,000 characters, in any case.
        exact: with ``reason``, read each job that the index names. Without, the ids are in no order, and if RQ's own
            commands have moved jobs some may be of another reason by now.
        connection: another Redis than that of REDIS_URL.

    Raises:
        UnknownQueue: there is no such queue.
    """
    client = connection or get_connection()
    if reason is not None:
        found = dead_index.by_reason(reason, queue, client)
        if not exact:
            return [job_id.decode() for ids in found.values() for job_id in ids]
        ids = dead_index.oldest_first(found, client)
        pages = [ids[start : start + _PAGE] for start in range(0, len(ids), _PAGE)]
        return [job_id for page in pages for job_id in _of_reason(reason, page, client)]
    with client.pipeline(transaction=False) as pipeline:
        for lane in lanes_of(queue):
            pipeline.zrange(key("failed", lane), 0, -1)
        return [as_text(job_id) for ids in pipeline.execute() for job_id in ids]


def count(queue: str | None = None, *, connection: redis.Redis | None = None) -> int:
    """How many dead letters ``queue`` has, or all queues.

    Raises:
        UnknownQueue: there is no such queue.
    """
    with (connection or get_connection()).pipeline(transaction=False) as pipeline:
        for lane in lanes_of(queue):
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
    return _change("requeue", job_ids, connection, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"))


def purge(job_ids: Iterable[str], *, connection: redis.Redis | None = None) -> list[str]:
    """Deletes dead jobs for good; answers the ids that were. An id that is not dead is left alone."""
    return _change("purge", job_ids, connection, "failed")


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
    forget(job_id)
    client.zrem(keys.dead_causes(letter.queue), job_id)  # its destination may be another
    client.hset(job_key(job_id), mapping={"data": pack_data(data), "description": job.label()})


def _change(script: str, job_ids: Iterable[str], connection: redis.Redis | None, *words: str) -> list[str]:
    client = connection or get_connection()
    ids = list(dict.fromkeys(job_ids))
    done: list[str] = []
    for start in range(0, len(ids), _PAGE):
        page = ids[start : start + _PAGE]
        done += [as_text(job_id) for job_id in run_script(script, client, [keys.PREFIX, *words, *page])]
    return done


def _of_reason(reason: str, ids: list[str], client: redis.Redis) -> list[str]:
    errors = [past.error or _UNKNOWN for past in summarize(ids, client)]
    return [job_id for job_id, error in zip(ids, errors, strict=True) if reason.lower() in error.lower()]


def _letters(ids: list[str], client: redis.Redis) -> list[DeadLetter]:
    jobs = [job for job in RegisteredJob.fetch_many(ids, connection=client, serializer=SERIALIZER) if job is not None]
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
