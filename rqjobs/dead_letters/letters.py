"""The dead letters, in RQ's FailedJobRegistry of each queue: listed, explained, requeued, purged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import redis

from rqjobs.broker import keys
from rqjobs.broker.attempts import Summary, summarize
from rqjobs.broker.connection import client_of
from rqjobs.broker.job_records import Record, id_text, read_records
from rqjobs.broker.job_signing import FIELD, NOT_SIGNED, sign, signs_jobs
from rqjobs.broker.rq_schema import (
    UNREADABLE,
    encode_data,
    fetch_job,
    job_key,
    key,
    pack_data,
    payload_of,
    results_key,
    run_script,
)
from rqjobs.broker.rq_types import as_text
from rqjobs.config.encryption import UnreadableSecret
from rqjobs.config.settings import get_settings
from rqjobs.dead_letters import index as dead_index
from rqjobs.errors import InvalidJob, JobNotFound
from rqjobs.jobs import JobModel
from rqjobs.jobs.at_rest import decrypt_job, encrypt_job
from rqjobs.policies import get_policy, lanes_of
from rqjobs.security.masking import mask, unmask

_PAGE = 200
_UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """One dead job, which is not retried automatically."""

    job_id: str
    queue: str
    """The lane of the job."""
    label: str
    """The job's description, one line."""
    reason: str
    """Its last error, one line."""
    attempts: int
    """The number of runs."""
    failed_at: datetime | None
    payload: dict[str, Any] | None
    """The job's fields with secrets masked (rqjobs.security.masking); None for a plain RQ job."""


def dead_letters(
    queue: str | None = None,
    reason: str | None = None,
    *,
    scan: int | None = None,
    connection: redis.Redis | None = None,
) -> Iterator[DeadLetter]:
    """Yields the dead letters of ``queue`` (by default of all queues), newest first in each queue.

    Args:
        queue: a queue or a lane.
        reason: only those whose last error has this text in its first 1,000 characters, in any case.
        scan: read at most this number of dead letters.
        connection: another Redis than that of REDIS_URL.

    Raises:
        UnknownQueue: there is no such queue.
    """
    client = client_of(connection)
    left = float("inf") if scan is None else scan
    lanes = lanes_of(queue)
    if reason is not None:
        dead_index.sync(lanes, client)
    for lane in lanes:
        meant = set() if reason is None else dead_index.reasons_with(reason, lane, client)
        if reason is not None and not meant:
            continue
        start = 0
        while left > 0 and (page := _page(lane, start, int(min(left, _PAGE)), client)):
            start += len(page)
            left -= len(page)
            if reason is None:
                yield from _letters(lane, page, client)
            else:
                likely = dead_index.may_have(meant, lane, [id_text(job_id) for job_id in page], client)
                yield from _letters(lane, _of_reason(reason, likely, client), client)


def _page(lane: str, start: int, size: int, client: redis.Redis) -> list[bytes]:
    """Returns the ids of one page of a lane's dead letters, newest first."""
    return cast("list[bytes]", client.zrevrange(key("failed", lane), start, start + size - 1))


def dead_ids(
    queue: str | None = None,
    reason: str | None = None,
    *,
    exact: bool = True,
    connection: redis.Redis | None = None,
) -> list[str]:
    """Returns the ids of the dead letters of ``queue``, or of all queues.

    In each lane the jobs that died first are at the front.

    Args:
        queue: a queue or a lane.
        reason: only those whose last error has this text in its first 1,000 characters, in any case.
        exact: with ``reason``, read each job that the index names. Without it, the ids are in no order, and some may
            have another reason if RQ's own commands have moved jobs.
        connection: another Redis than that of REDIS_URL.

    Raises:
        UnknownQueue: there is no such queue.
    """
    client = client_of(connection)
    if reason is not None:
        found = dead_index.by_reason(reason, queue, client)
        if not exact:
            return [id_text(job_id) for ids in found.values() for job_id in ids]
        ids = dead_index.oldest_first(found, client)
        pages = [ids[start : start + _PAGE] for start in range(0, len(ids), _PAGE)]
        return [job_id for page in pages for job_id in _of_reason(reason, page, client)]
    with client.pipeline(transaction=False) as pipeline:
        for lane in lanes_of(queue):
            pipeline.zrange(key("failed", lane), 0, -1)
        return [id_text(job_id) for ids in pipeline.execute() for job_id in ids]


def count(queue: str | None = None, *, connection: redis.Redis | None = None) -> int:
    """Returns the number of dead letters of ``queue``, or of all queues.

    Raises:
        UnknownQueue: there is no such queue.
    """
    with client_of(connection).pipeline(transaction=False) as pipeline:
        for lane in lanes_of(queue):
            pipeline.zcard(key("failed", lane))
        return sum(pipeline.execute())


def dead_letter(job_id: str, *, connection: redis.Redis | None = None) -> DeadLetter:
    """Returns the dead letter with this id.

    Raises:
        JobNotFound: there is no dead job with this id.
    """
    client = client_of(connection)
    lanes = lanes_of(None)
    with client.pipeline(transaction=False) as pipeline:
        for lane in lanes:
            pipeline.zscore(key("failed", lane), job_id.encode(errors="replace"))
        scores = pipeline.execute()
    for lane, score in zip(lanes, scores, strict=True):
        if score is not None and (letters := _letters(lane, [job_id], client)):
            return letters[0]
    raise JobNotFound(job_id)


def requeue(job_ids: Iterable[str], *, connection: redis.Redis | None = None) -> list[str]:
    """Puts dead jobs back into their queues, with all their attempts; returns the ids of those that were dead.

    RQ's own requeue would leave them without retries. Jobs that are not dead are not changed.
    """
    return _change("requeue", job_ids, connection, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"))


def purge(job_ids: Iterable[str], *, connection: redis.Redis | None = None) -> list[str]:
    """Deletes dead jobs; returns their ids. Jobs that are not dead are not changed."""
    client, ids = client_of(connection), list(dict.fromkeys(job_ids))
    done = _change("purge", ids, client, "failed")
    return [*done, *_purge_unreadable(set(ids) - set(done), client)]


def _purge_unreadable(ids: set[str], client: redis.Redis) -> list[str]:
    """Deletes dead letters whose record does not name their queue, which the script cannot find."""
    gone = []
    for job_id in sorted(ids):
        with client.pipeline() as pipeline:
            for lane in lanes_of(None):
                pipeline.zrem(key("failed", lane), job_id)
            removed = any(pipeline.execute())
        if removed:
            client.delete(job_key(job_id), results_key(job_id))
            gone.append(job_id)
    return gone


def replace_payload(job_id: str, payload: Any, *, connection: redis.Redis | None = None) -> None:
    """Changes the fields of a dead job, validated as at its enqueueing; it stays dead until it is requeued.

    Values that are masked in ``payload`` are kept.

    Raises:
        InvalidJob: the payload is invalid; the message names every fault, and nothing was changed.
        JobNotFound: there is no dead job of ours with this id.
    """
    client = client_of(connection)
    letter = dead_letter(job_id, connection=client)
    present = fetch_job(job_id, client)
    known = payload_of(present)
    if known is None:
        raise JobNotFound(job_id)
    policy = get_policy(letter.queue)
    if present.forged:  # its masked values would be signed without having been seen
        raise InvalidJob(policy.job_type.__name__, [NOT_SIGNED])
    try:
        job = policy.job_type.parse(unmask(payload, _in_clear(policy.job_type, known[1], job_id)))
    except InvalidJob:
        raise
    except ValueError as error:
        raise InvalidJob(policy.job_type.__name__, [str(error)]) from None
    data = encode_data(policy.name, encrypt_job(job, job_id).dump_json())
    limit = get_settings().rqjobs_max_payload
    if len(data) > limit:
        raise InvalidJob(type(job).__name__, [f"the job has {len(data)} bytes; RQJOBS_MAX_PAYLOAD allows {limit}"])
    client.zrem(keys.dead_fingerprints(letter.queue), job_id)  # its destination may have changed
    fields: Any = {"data": pack_data(data), "description": job.label()}
    if signs_jobs():
        fields[FIELD] = sign(policy.name, job_id, data)
    client.hset(job_key(job_id), mapping=fields)


def _in_clear(kind: type[JobModel], payload: dict[str, Any], job_id: str) -> dict[str, Any]:
    """Returns the payload with its secrets decrypted.

    They are encrypted again for the destination of the edited job. A secret that cannot be decrypted, or a payload that
    is not valid, is unchanged, and can be replaced.
    """
    try:
        return decrypt_job(kind.parse(payload), job_id).dump()
    except (InvalidJob, UnreadableSecret):
        return payload


def _change(script: str, job_ids: Iterable[str], connection: redis.Redis | None, *arguments: str) -> list[str]:
    client = client_of(connection)
    ids = list(dict.fromkeys(job_ids))
    done: list[str] = []
    for start in range(0, len(ids), _PAGE):
        page = ids[start : start + _PAGE]
        done += [as_text(job_id) for job_id in run_script(script, client, [keys.PREFIX, *arguments, *page])]
    return done


def _of_reason(reason: str, ids: Sequence[str], client: redis.Redis) -> list[str]:
    errors = [past.error or _UNKNOWN for past in summarize(ids, client)]
    return [job_id for job_id, error in zip(ids, errors, strict=True) if reason.lower() in error.lower()]


def _letters(lane: str, ids: Sequence[bytes | str], client: redis.Redis) -> list[DeadLetter]:
    records = [record for record in read_records(ids, client) if record.job or record.fault]
    past = summarize([record.job_id for record in records], client)
    return [_letter(lane, record, each) for record, each in zip(records, past, strict=True)]


def _letter(lane: str, record: Record, past: Summary) -> DeadLetter:
    job = record.job
    known = payload_of(job) if job else None
    return DeadLetter(
        job_id=record.job_id,
        queue=job.origin if job else lane,
        label=(job.description or job.func_name or job.id) if job else UNREADABLE,
        reason=record.fault or past.error or _UNKNOWN,
        attempts=past.runs,
        failed_at=job.ended_at if job else None,
        payload=mask(known[1]) if known else None,
    )
