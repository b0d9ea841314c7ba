"""Enqueues batches and chains: to Redis now, after a commit, or through the outbox."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any, Unpack

import redis

from rqjobs.batches.head import ROW_LANE, BatchHead, Follower, Role, head_row, seal, seal_row
from rqjobs.batches.records import Batch, cancel
from rqjobs.broker import keys
from rqjobs.broker.connection import client_of
from rqjobs.broker.job_builder import JobOptions, build_entry, new_id, outbox_row
from rqjobs.broker.job_writer import (
    Entry,
    Kind,
    after_commit,
    capture_batch,
    captured,
    is_capturing,
    wait_for_commit,
    write_now,
)
from rqjobs.broker.rq_schema import BATCH_FIELD
from rqjobs.config.logs import event
from rqjobs.errors import BatchNotFound, DuplicateJob, InvalidJob
from rqjobs.jobs.base import JobModel, encode_json

_CHUNK = 500  # the most members that one call to Redis writes, as in enqueue_many
MAX_LINKS = 500
"""The most jobs of a chain, which one call to Redis writes."""

Item = JobModel | tuple[JobModel, JobOptions]


def enqueue_batch(
    jobs: Iterable[Item],
    /,
    *,
    then: Item | Sequence[Item] | None = None,
    on_dead: Item | Sequence[Item] | None = None,
    name: str = "",
    tags: Mapping[str, str] | None = None,
    **options: Unpack[JobOptions],
) -> Batch:
    """Enqueues jobs that are counted together. They run as soon as they are in Redis, in any order.

    Args:
        jobs: up to 1,000,000 job models, or pairs of a model and its own options; of any queues. A generator is read
            500 at a time, so that the caller's memory does not grow (except inside a transaction of Django without
            ``outbox``). If it yields none for an hour, the batch counts as abandoned and is cancelled.
        then: the job or jobs that are enqueued, once, when every member is done.
        on_dead: the job or jobs that are enqueued, once, when the first member is dead.
        name: a text for lists and pages.
        tags: tags for lists and pages.
        options: the options of all members without their own; ``connection``, ``on_commit`` and ``outbox`` as in
            ``enqueue``, for the whole batch.

    Returns:
        The batch; ``get_batch`` and ``rqjobs batches`` take its ``id``.

    Raises:
        InvalidJob: a job or an option is invalid; the message names every fault.
        DuplicateJob: the id of a job is in use. After any error the batch is cancelled: members that have not begun are
            deleted.
        BatchNotFound: the batch was cancelled during this call.
        RedisUnavailable: Redis does not answer.
    """
    head = _head(name, tags)
    followers = [*_followers("then", then, options, head), *_followers("on_dead", on_dead, options, head)]
    return _enqueue(replace(head, followers=followers), _chunks(jobs, options, head.batch_id), options)


def enqueue_chain(
    jobs: Iterable[Item],
    /,
    *,
    on_dead: Item | Sequence[Item] | None = None,
    name: str = "",
    tags: Mapping[str, str] | None = None,
    **options: Unpack[JobOptions],
) -> Batch:
    """Enqueues jobs that run one after the other, each when the one before is done; all are written in one step.

    A dead job stops the chain; after it is requeued and done, the chain continues.

    Args:
        jobs: up to 500 job models, or pairs of a model and its own options. A ``delay`` begins when the job before is
            done.
        on_dead: as in :func:`enqueue_batch`.
        name: as in :func:`enqueue_batch`.
        tags: as in :func:`enqueue_batch`.
        options: as in :func:`enqueue_batch`.

    Returns:
        The chain; a batch whose members run one after the other.

    Raises:
        InvalidJob: a job or an option is invalid, or there are more than 500 jobs. Nothing is enqueued.
        DuplicateJob: the id of a job is in use. Nothing is enqueued.
        RedisUnavailable: Redis does not answer.
    """
    links = list(islice(jobs, MAX_LINKS + 1))
    if len(links) > MAX_LINKS:
        raise InvalidJob("chain", [f"it has more than {MAX_LINKS} jobs: let its last job enqueue the next chain"])
    head = _head(name, tags, chain="1")
    followers = [*_followers("next", links, options, head), *_followers("on_dead", on_dead, options, head)]
    return _enqueue(replace(head, followers=followers, expected=len(links)), iter(()), options)


def _head(name: str, tags: Mapping[str, str] | None, **fields: str) -> BatchHead:
    now = time.time()
    known = {"name": name[:200], "tags": encode_json(dict(tags or {})), "created": f"{now:.6f}", **fields}
    return BatchHead(new_id(round(now * 1_000_000)), None, known, [])


def _followers(role: Role, given: Item | Sequence[Item] | None, options: JobOptions, head: BatchHead) -> list[Follower]:
    if given is None:
        return []
    is_one = isinstance(given, JobModel) or (len(given) == 2 and isinstance(given[1], dict))  # noqa: PLR2004
    items: Any = [given] if is_one else given
    common = options if role == "next" else JobOptions()  # the options of members do not apply to followers
    return [Follower.of(role, entry, head.batch_id) for entry in _entries(items, common)]


def _entries(items: Iterable[Item], options: JobOptions) -> list[Entry]:
    now = time.time_ns() // 1000
    found = []
    for index, item in enumerate(items):
        job, own = item if isinstance(item, tuple) else (item, None)
        entry = build_entry(job, options, own, now + index)
        if entry.again is not None:
            raise InvalidJob(type(job).__name__, ["debounce: not in a batch or chain, whose members each count"])
        found.append(entry)
    return found


def _chunks(jobs: Iterable[Item], options: JobOptions, batch_id: str) -> Iterator[list[Entry]]:
    """Yields the members, 500 at a time; only the last chunk has fewer."""
    kinds: dict[Kind, Kind] = {}

    def member(entry: Entry) -> Entry:
        kind = kinds.get(entry.kind)
        if kind is None:
            fields = {**entry.kind.fields, BATCH_FIELD: batch_id}
            kind = kinds[entry.kind] = replace(entry.kind, fields=fields)
        return entry._replace(kind=kind)

    items = iter(jobs)
    while chunk := list(islice(items, _CHUNK)):
        if len(kinds) > _CHUNK:  # options of their own, such as random waits, make a kind for each job
            kinds.clear()
        yield [member(entry) for entry in _entries(chunk, options)]


def _enqueue(head: BatchHead, chunks: Iterator[list[Entry]], options: JobOptions) -> Batch:
    connection, outbox = options.get("connection"), options.get("outbox")
    batch = Batch(head.batch_id, connection)
    if outbox is not None and not is_capturing():
        _store(head, chunks, outbox)
        return batch
    held: list[list[Entry]] = []
    if outbox is None and options.get("on_commit", True) and after_commit(lambda: _send_held(head, held, connection)):
        held.extend(chunks)
        wait_for_commit([entry for chunk in held for entry in chunk])
        return batch
    _send(head, chunks, connection)
    return batch


def _send_held(head: BatchHead, held: list[list[Entry]], connection: redis.Redis | None) -> None:
    try:
        _send(head, iter(held), connection)
    except DuplicateJob as error:  # the transaction is committed, so a duplicate is only logged, as for single jobs
        event(logging.WARNING, "batch not enqueued: ids are in use", batch=head.batch_id, ids=",".join(error.job_ids))


def _send(head: BatchHead, chunks: Iterator[list[Entry]], connection: redis.Redis | None) -> None:
    if is_capturing():
        _capture(head, chunks)
        return
    client = client_of(connection)
    count, first = 0, next(chunks, [])
    expected = head.expected
    if expected is None and len(first) < _CHUNK:
        expected = len(first)
    if used := replace(head, expected=expected, fields={**head.fields, "direct": "1"}).write(client, strict=True):
        raise DuplicateJob(used)
    try:
        for chunk in chain([first] if first else [], chunks):
            _write(chunk, head.batch_id, client, connection)
            count += len(chunk)
        if expected is None:
            _seal(head.batch_id, count, client)
    except BaseException:
        with contextlib.suppress(Exception):  # if Redis is away, a worker does it in an hour
            cancel(head.batch_id, client, final=True)
        raise


def _write(chunk: list[Entry], batch_id: str, client: redis.Redis, connection: redis.Redis | None) -> None:
    if refused := write_now(chunk, connection):
        cancelled = client.hexists(keys.batch(batch_id), "cancelled")
        raise BatchNotFound(batch_id) if cancelled else DuplicateJob(refused)


def _seal(batch_id: str, count: int, client: redis.Redis) -> None:
    if not seal(batch_id, count, client):
        raise BatchNotFound(batch_id)


def _store(head: BatchHead, chunks: Iterator[list[Entry]], outbox: Any) -> None:
    from rqjobs.database.outbox import store  # SQLAlchemy is heavy, and a web process may not need it

    def row(fields: str) -> dict[str, Any]:
        token = new_id(time.time_ns() // 1000)
        return {"token": token, "job_id": head.batch_id, "lane": ROW_LANE, "due": None, "only_once": False,
                "fields": fields}  # fmt: skip

    count, first = 0, next(chunks, [])
    known = head.expected if head.expected is not None else len(first) if len(first) < _CHUNK else None
    store(outbox, [row(head_row(replace(head, expected=known)))])
    for chunk in chain([first] if first else [], chunks):
        now = time.time_ns() // 1000
        store(outbox, [outbox_row(entry, now) for entry in chunk])
        count += len(chunk)
    if known is None:
        store(outbox, [row(seal_row(count))])


def _capture(head: BatchHead, chunks: Iterator[list[Entry]]) -> None:
    followers: dict[Role, list[Entry]] = {"then": [], "on_dead": [], "next": []}
    for follower in head.followers:
        followers[follower.role].append(follower.entry())
    for chunk in chain([followers["next"]], chunks):
        captured(chunk)
    capture_batch(followers["then"], followers["on_dead"])
