"""Requeues or deletes a failure group: counts it, waits for one canary, then requeues the others at a rate."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from datetime import timedelta
from functools import partial
from typing import Any, Literal, cast

import redis

from rqjobs.broker import keys
from rqjobs.broker.attempts import summarize
from rqjobs.broker.connection import client_of
from rqjobs.broker.rq_schema import job_key
from rqjobs.dead_letters.entries import read
from rqjobs.dead_letters.index import by_group, oldest_first
from rqjobs.dead_letters.letters import purge, requeue

Mode = Literal["dry-run", "requeue", "purge"]
State = Literal["counting", "canary", "running", "done", "stopped"]

RATE = 20.0
"""The default rate: jobs requeued per second."""

CANARY_SECONDS = 120.0
"""Seconds after which a canary that is not done stops the bulk requeue."""

_STORED = {"group_id": "cause"}  # fields that have another name in Redis
_KEPT = 7 * 24 * 3600
_PAGE = 200
_STEP = 0.25  # seconds between two steps
_SILENT = 30.0  # seconds without a heartbeat after which its process counts as dead


@dataclass(frozen=True, kw_only=True)
class BulkRequeue:
    """A bulk requeue, dry run or purge of a failure group, and its progress."""

    id: str
    group_id: str
    """The id of the failure group."""
    title: str
    mode: Mode
    canary: bool
    """Whether one job is requeued first, and the others only when it is done."""
    rate: float
    """Jobs requeued per second."""
    state: State = "counting"
    total: int = 0
    """The number of jobs in the group."""
    done: int = 0
    """The number of jobs requeued or purged so far."""
    canary_id: str = ""
    message: str = ""
    started: float = 0.0
    beat: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether it has ended, or its process is dead."""
        return self.state in ("done", "stopped") or time.time() - self.beat > _SILENT

    @property
    def left(self) -> timedelta | None:
        """The time that the remaining jobs take at ``rate``; None if no job is being requeued."""
        if self.mode != "requeue" or self.state != "running" or self.ended:
            return None
        return timedelta(seconds=(self.total - self.done) / self.rate)


def start(
    group_id: str,
    title: str,
    mode: Mode,
    *,
    canary: bool = True,
    rate: float = RATE,
    connection: redis.Redis | None = None,
) -> BulkRequeue:
    """Stores a new bulk requeue; :func:`run` executes it.

    Args:
        group_id: the id of the failure group.
        title: the title for pages.
        mode: ``dry-run`` only counts.
        canary: requeue one job first, and the others only when it is done.
        rate: jobs requeued per second, so that a destination that has recovered is not overloaded.
        connection: another Redis than that of REDIS_URL.
    """
    client = client_of(connection)
    now = time.time()
    bulk = BulkRequeue(
        id=secrets.token_hex(6), group_id=group_id, title=title[:300], mode=mode, canary=canary, rate=max(rate, 0.1),
        started=now, beat=now,
    )  # fmt: skip
    _save(bulk, client)
    with client.pipeline(transaction=False) as pipeline:
        pipeline.zadd(keys.BULK_REQUEUES, {bulk.id: now})
        pipeline.zremrangebyrank(keys.BULK_REQUEUES, 0, -21)
        pipeline.expire(keys.BULK_REQUEUES, _KEPT)
        pipeline.execute()
    return bulk


def find(bulk_id: str, connection: redis.Redis | None = None) -> BulkRequeue | None:
    """Returns the bulk requeue with this id and its progress; None if it does not exist (any more)."""
    return _restore(client_of(connection).hgetall(keys.bulk_requeue(bulk_id)))


def recent(connection: redis.Redis | None = None) -> list[BulkRequeue]:
    """Returns the last ten bulk requeues, newest first."""
    client = client_of(connection)
    ids = [
        job_id.decode(errors="replace") for job_id in cast("list[bytes]", client.zrevrange(keys.BULK_REQUEUES, 0, 9))
    ]
    with client.pipeline(transaction=False) as pipeline:
        for bulk_id in ids:
            pipeline.hgetall(keys.bulk_requeue(bulk_id))
        answers = pipeline.execute(raise_on_error=False)
    return [bulk for raw in answers if (bulk := _restore(raw)) is not None]


def stop(bulk_id: str, connection: redis.Redis | None = None) -> None:
    """Ends a bulk requeue after its current step; requeued jobs stay requeued."""
    client = client_of(connection)
    if client.exists(keys.bulk_requeue(bulk_id)):
        client.hset(keys.bulk_requeue(bulk_id), "stop", "1")


def run(
    bulk: BulkRequeue, connection: redis.Redis, seen: Callable[[BulkRequeue], None] = lambda _bulk: None
) -> BulkRequeue:
    """Executes ``bulk`` in this thread until its end; calls ``seen`` at every step. Returns its last state."""

    def say(**changes: Any) -> None:
        nonlocal bulk
        bulk = replace(bulk, beat=time.time(), **changes)
        _save(bulk, connection)
        seen(bulk)

    def stopped() -> bool:
        return bool(connection.hexists(keys.bulk_requeue(bulk.id), "stop"))

    def change(what: Callable[..., list[str]], job_ids: list[str]) -> int:
        """Changes those of the jobs that are still dead with this fingerprint; returns their number."""
        members = [x.example.job_id for x in read(job_ids, connection) if bulk.group_id in x.fingerprint.ids]
        return len(what(members, connection=connection))

    found = by_group(bulk.group_id, connection)
    say(total=sum(map(len, found.values())))
    if bulk.mode == "dry-run":
        say(state="done", message=f"{bulk.total:,} jobs belong to this group; nothing was changed")
        return bulk
    ids = oldest_first(found, connection)
    if bulk.mode == "purge":
        _purge(ids, partial(change, purge), say, stopped)
        return bulk
    if bulk.canary and ids:
        first = ids.pop(0)
        while not (sent := change(requeue, [first])) and ids:
            first = ids.pop(0)
        if not sent:
            say(state="done", message="none of them is dead of this any more; nothing was changed")
            return bulk
        say(state="canary", canary_id=first, done=sent)
        fault = _watch(first, connection, say, stopped)
        if fault:
            say(state="stopped", message=f"{fault}; the others were left alone")
            return bulk
    _requeue_at_rate(ids, bulk, partial(change, requeue), say, stopped)
    return bulk


def _watch(job_id: str, connection: redis.Redis, say: Callable[..., None], stopped: Callable[[], bool]) -> str | None:
    """Waits for the canary; returns why the others must not follow, or None."""
    deadline = time.monotonic() + CANARY_SECONDS
    while time.monotonic() < deadline:
        status = connection.hget(job_key(job_id), "status")
        if status in (None, b"finished"):  # None: it is done, and not kept any more
            return None
        if status in (b"failed", b"stopped", b"canceled"):
            return f"the canary {job_id} died again: {summarize([job_id], connection)[0].error}"
        if stopped():
            return "stopped by hand"
        say(message="the canary runs; the others wait for it")
        time.sleep(_STEP)
    return f"the canary {job_id} was not done within {CANARY_SECONDS:.0f} s"


def _purge(
    ids: list[str], delete: Callable[[list[str]], int], say: Callable[..., None], stopped: Callable[[], bool]
) -> None:
    done = 0
    for begin in range(0, len(ids), _PAGE):
        if stopped():
            say(state="stopped", message=f"stopped by hand; {done:,} jobs were deleted")
            return
        done += delete(ids[begin : begin + _PAGE])
        say(state="running", done=done)
    say(state="done", message=f"{done:,} jobs were deleted")


def _requeue_at_rate(
    ids: list[str],
    bulk: BulkRequeue,
    again: Callable[[list[str]], int],
    say: Callable[..., None],
    stopped: Callable[[], bool],
) -> None:
    began, sent, done = time.monotonic(), 0, bulk.done
    say(state="running", message="")
    while sent < len(ids):
        if stopped():
            say(state="stopped", message=f"stopped by hand; {done:,} jobs were requeued")
            return
        due = min(len(ids), int((time.monotonic() - began) * bulk.rate) + 1, sent + 1000)
        if due > sent:
            done += again(ids[sent:due])
            sent = due
            say(done=done)
        if sent < len(ids):
            time.sleep(min(_STEP, 1 / bulk.rate))
    say(state="done", message=f"{done:,} jobs were requeued")


def _save(bulk: BulkRequeue, client: redis.Redis) -> None:
    name = keys.bulk_requeue(bulk.id)
    values: dict[Any, Any] = {
        _STORED.get(field, field): int(value) if isinstance(value, bool) else value
        for field, value in asdict(bulk).items()
    }
    with client.pipeline(transaction=False) as pipeline:
        pipeline.hset(name, mapping=values)
        pipeline.expire(name, _KEPT)
        pipeline.execute()


def _restore(raw: object) -> BulkRequeue | None:
    """Returns the bulk requeue in a hash; None if the hash is not one of ours."""
    if not isinstance(raw, dict):
        return None
    texts = {name.decode(errors="replace"): value.decode(errors="replace") for name, value in raw.items()}
    readers: dict[str, Callable[[str], Any]] = {
        "canary": lambda text: text == "1", "rate": float, "total": int, "done": int, "started": float, "beat": float,
    }  # fmt: skip
    known = {_STORED.get(field.name, field.name): field.name for field in fields(BulkRequeue)}
    try:
        return BulkRequeue(
            **{known[name]: readers.get(name, str)(text) for name, text in texts.items() if name in known}
        )
    except (ValueError, TypeError):  # a field is missing, or not a number
        return None
