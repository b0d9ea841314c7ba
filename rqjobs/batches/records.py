"""Reads, waits for and cancels batches, and requeues their dead members."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, cast

import redis

from rqjobs.broker import keys
from rqjobs.broker.connection import client_of
from rqjobs.broker.rq_schema import key, run_script
from rqjobs.broker.rq_types import as_text
from rqjobs.config.durations import parse_duration
from rqjobs.config.logs import event
from rqjobs.dead_letters.letters import requeue
from rqjobs.errors import BatchFailed, BatchNotFound, BatchTimeout

State = Literal["opening", "running", "dead", "done", "cancelled"]

FIRST_LOOK, LAST_LOOK = 0.01, 0.25
"""Seconds between two checks while a process waits for a batch: the first, and the longest."""

ABANDONED = timedelta(hours=1)
"""The time without new members after which a batch counts as abandoned: the process that enqueued it has died."""

_LOST_HEAD = timedelta(days=30)
"""The same for members that an outbox has sent: their rows are safe, and the others arrive when a relay runs."""

_PAGE = 500  # jobs that one call to Redis looks at: a few milliseconds of Redis
_CHECKED = 200  # batches that are checked at once
_FIELDS = ("name", "tags", "created", "expected", "total", "left_out", "done", "died", "ended", "cancelled",
           "chain", "then", "on_dead")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BatchProgress:
    """The number of members of a batch in each state, at one moment."""

    waiting: int
    """Waiting or delayed members; in a chain also those that have not started."""
    running: int
    done: int
    dead: int
    """Members that are dead, or were deleted before they were done."""
    total: int


@dataclass(frozen=True, kw_only=True)
class BatchRecord:
    """The state of a batch at one moment."""

    id: str
    name: str
    tags: dict[str, str]
    state: State
    """``opening``: not all members have arrived; ``running``: some have not ended; ``dead``: it does not continue until
    dead members are requeued; ``done``; ``cancelled``: removed when no more members arrive.
    """
    chain: bool
    created_at: datetime | None
    ended_at: datetime | None
    """The time at which the last member was done."""
    progress: BatchProgress
    then: tuple[str, ...]
    """The ids of the jobs that are enqueued when every member is done."""
    on_dead: tuple[str, ...]
    """The ids of the jobs that are enqueued at the first dead member."""


class Batch:
    """A batch or a chain, in Redis.

    Attributes:
        id: its id, for :func:`get_batch` and ``rqjobs batches``.
        connection: another Redis than that of REDIS_URL, or None.
    """

    def __init__(self, batch_id: str, connection: redis.Redis | None = None) -> None:
        self.id = batch_id
        self.connection = connection

    def __repr__(self) -> str:
        return f"Batch({self.id!r})"

    def read(self) -> BatchRecord:
        """Returns the current state.

        Raises:
            BatchNotFound: the batch was cancelled, or done more than a day ago.
            RedisUnavailable: Redis does not answer.
        """
        return read_batch(self.id, client_of(self.connection))

    def progress(self) -> BatchProgress:
        """Returns the number of members in each state; raises the errors of :meth:`read`."""
        return self.read().progress

    def wait(self, timeout: timedelta | str = timedelta(seconds=30)) -> BatchProgress:
        """Waits until every member is done.

        Args:
            timeout: the longest wait, 30 s by default.

        Raises:
            BatchFailed: members are dead, and no other can start.
            BatchTimeout: not all members are done. The batch itself is not affected.
            BatchNotFound: the batch was cancelled, or done more than a day ago.
            RedisUnavailable: Redis does not answer.
        """
        client, limit = client_of(self.connection), parse_duration(timeout)
        deadline, pause = time.monotonic() + limit.total_seconds(), FIRST_LOOK
        while (found := look(self.id, client)) is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise timed_out(self.id, client, limit)
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, LAST_LOOK)
        return found

    def cancel(self) -> int:
        """Deletes the waiting members and the batch; returns the number of deleted members. Running members continue.

        A batch that is done is not changed. Dead members stay in the dead letters.

        Raises:
            BatchNotFound: there is no such batch (any more).
            RedisUnavailable: Redis does not answer.
        """
        return cancel(self.id, client_of(self.connection))

    def requeue_dead(self) -> list[str]:
        """Puts the dead members back into their queues; returns their ids. ``then`` is enqueued when all are done.

        The newest 500 dead jobs of each queue are kept (RQJOBS_KEEP_FAILED); others cannot be requeued.

        Raises:
            RedisUnavailable: Redis does not answer.
        """
        client = client_of(self.connection)
        return requeue(self.dead_ids(), connection=client)

    def dead_ids(self) -> list[str]:
        """Returns the ids of the dead members, in no particular order."""
        client = client_of(self.connection)
        return [as_text(job_id) for job_id in client.sscan_iter(f"{keys.batch(self.id)}:dead", count=_PAGE)]


def get_batch(batch_id: str, *, connection: redis.Redis | None = None) -> Batch:
    """Returns the batch with this id.

    Raises:
        BatchNotFound: the batch was cancelled, or done more than a day ago.
        RedisUnavailable: Redis does not answer.
    """
    if not client_of(connection).exists(keys.batch(batch_id)):
        raise BatchNotFound(batch_id)
    return Batch(batch_id, connection)


def list_batches(limit: int = 100, *, connection: redis.Redis | None = None) -> list[BatchRecord]:
    """Returns the batches: those that are not done first, each part with the newest first.

    Args:
        limit: the most batches.
        connection: another Redis than that of REDIS_URL.

    Raises:
        RedisUnavailable: Redis does not answer.
    """
    client = client_of(connection)
    found: list[BatchRecord] = []
    for index in (keys.BATCHES, keys.BATCHES_DONE):
        ids = cast("list[bytes]", client.zrevrange(index, 0, limit - 1))[: limit - len(found)]
        if not ids:
            continue
        with client.pipeline(transaction=False) as pipeline:
            for batch_id in ids:
                run_script("batch_progress", pipeline, _arguments(as_text(batch_id)))
            answers = pipeline.execute(raise_on_error=False)
        for batch_id, row in zip(ids, answers, strict=True):
            if isinstance(row, list) and row:
                found.append(_record(as_text(batch_id), row))
    return found


def read_batch(batch_id: str, client: redis.Redis) -> BatchRecord:
    """Returns the current state of the batch with this id.

    Raises:
        BatchNotFound: there is none.
    """
    row = run_script("batch_progress", client, _arguments(batch_id))
    if not row:
        raise BatchNotFound(batch_id)
    return _record(batch_id, row)


def look(batch_id: str, client: redis.Redis) -> BatchProgress | None:
    """Returns the progress of a batch that is done; None if it is not.

    Raises:
        BatchFailed: it cannot continue because of its dead members.
        BatchNotFound: there is none.
    """
    record = keys.batch(batch_id)
    with client.pipeline() as pipeline:
        pipeline.hmget(record, "ended", "cancelled", "chain", "expected", "total")
        pipeline.scard(f"{record}:open")
        pipeline.scard(f"{record}:dead")
        pipeline.exists(record)
        (ended, cancelled, chain, expected, _), waiting, dead, exists = pipeline.execute()
    if not exists or cancelled:
        raise BatchNotFound(batch_id)
    if ended:
        return read_batch(batch_id, client).progress
    if dead and expected and (chain or not waiting):
        raise BatchFailed(batch_id, dead)
    return None


def timed_out(batch_id: str, client: redis.Redis, limit: timedelta) -> BatchTimeout:
    """Returns the error of a wait that took too long."""
    progress = read_batch(batch_id, client).progress
    return BatchTimeout(batch_id, progress.done, progress.total, limit)


def cancel(batch_id: str, client: redis.Redis, *, final: bool = False) -> int:
    """Deletes a batch and its waiting members; returns their number. ``final``: no more members will arrive.

    Raises:
        BatchNotFound: there is no such batch.
    """

    def step(*values: Any) -> tuple[int, int, int]:
        seen, gone, left = run_script("batch_cancel", client, [keys.PREFIX, batch_id, *values])
        return seen, gone, left

    if not client.exists(keys.batch(batch_id)):
        raise BatchNotFound(batch_id)
    if not step("begin")[0]:
        return 0
    prefix = key("queue", "")
    lanes = sorted(as_text(name).removeprefix(prefix) for name in cast("set[bytes]", client.smembers(key("queues"))))
    removed, passed = 0, 1
    while passed:  # what is claimed meanwhile moves the others to places that were looked at
        passed = 0
        for part, lane in ((part, lane) for lane in lanes for part in ("queue", "groups", "delayed")):
            first, seen, left = 0, 1, 1
            while seen and left:
                seen, gone, left = step(part, lane, first, _PAGE)
                first += seen - gone
                passed += gone
        removed += passed
    step("end", "1" if final else "")
    return removed


def check_batches(client: redis.Redis) -> None:
    """Cancels abandoned batches, and counts members that our scripts have not counted; called at intervals."""
    _cancel_abandoned(client)
    for batch_id in cast("list[bytes]", client.zrevrange(keys.BATCHES, 0, _CHECKED - 1)):
        name = as_text(batch_id)
        try:
            counted = run_script("batch_check", client, [keys.PREFIX, name, _PAGE])
        except redis.exceptions.ResponseError:  # its keys are of another type
            continue
        if counted:
            event(logging.WARNING, "members of a batch were ended by others", batch=name, jobs=counted)


def _cancel_abandoned(client: redis.Redis) -> None:
    """Cancels batches that receive no more members, because the call that enqueues them was killed."""
    now = time.time()
    latest = now - ABANDONED.total_seconds()
    found: Any = client.zrangebyscore(keys.BATCHES_OPENING, 0, latest, withscores=True)
    for batch_id, since in found:
        name = as_text(batch_id)
        if now - since > _LOST_HEAD.total_seconds() or client.hexists(keys.batch(name), "direct"):
            try:
                removed = cancel(name, client, final=True)
            except BatchNotFound:
                client.zrem(keys.BATCHES_OPENING, batch_id)
            else:
                event(logging.WARNING, "abandoned batch cancelled", batch=name, removed=removed)


def document(record: BatchRecord) -> dict[str, Any]:
    """Returns the record for JSON output."""
    return asdict(record)


def _arguments(batch_id: str) -> list[str]:
    return [keys.PREFIX, batch_id, *_FIELDS]


def _record(batch_id: str, row: list[Any]) -> BatchRecord:
    waiting, running, dead, *values = row
    pairs = zip(_FIELDS, values, strict=True)
    known = {name: value.decode(errors="replace") for name, value in pairs if value is not None}
    total, done = _number(known.get("total")), _number(known.get("done"))
    chain = "chain" in known
    state: State = "running"
    if "ended" in known:
        state = "done"
    elif "cancelled" in known:
        state = "cancelled"
    elif "expected" not in known or total + _number(known.get("left_out")) < _number(known["expected"]):
        state = "opening"
    elif dead and (chain or not waiting):
        state = "dead"
    return BatchRecord(
        id=batch_id,
        name=known.get("name", ""),
        tags=_tags(known.get("tags")),
        state=state,
        chain=chain,
        created_at=_time(known.get("created")),
        ended_at=_time(known.get("ended")),
        progress=BatchProgress(waiting=waiting - running, running=running, done=done, dead=dead, total=total),
        then=_ids(known.get("then")),
        on_dead=_ids(known.get("on_dead")),
    )


def _number(text: str | None) -> int:
    try:
        return int(text or 0)
    except ValueError:  # any client of Redis may have written it
        return 0


def _time(text: str | None) -> datetime | None:
    try:
        return datetime.fromtimestamp(float(text), UTC) if text else None
    except (ValueError, OverflowError, OSError):
        return None


def _tags(text: str | None) -> dict[str, str]:
    try:
        return {str(name): str(value) for name, value in json.loads(text or "{}").items()}
    except (ValueError, AttributeError, RecursionError):
        return {}


def _ids(text: str | None) -> tuple[str, ...]:
    try:
        return tuple(str(row[0]) for row in json.loads(text or "[]"))
    except (ValueError, TypeError, LookupError, RecursionError):
        return ()
