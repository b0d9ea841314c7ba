"""Repairs of a whole group of dead letters: counted first, one canary ahead, then at a pace, seen while they go on."""

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
from rqjobs.dead_letters.index import by_cause, oldest_first
from rqjobs.dead_letters.letters import purge, requeue

Mode = Literal["dry-run", "requeue", "purge"]
State = Literal["counting", "canary", "running", "done", "stopped"]

RATE = 20.0
"""Jobs that are requeued a second unless told otherwise."""

CANARY_SECONDS = 120.0
"""How long a canary may take until the others are left alone."""

_KEPT = 7 * 24 * 3600
_PAGE = 200
_STEP = 0.25  # seconds between two steps of a paced repair
_SILENT = 30.0  # a repair that said nothing for so long has lost its process


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What was asked for, and how far it is."""

    id: str
    cause: str
    """The group's id."""
    title: str
    mode: Mode
    canary: bool
    """Whether one job goes first, and the others only if it is done."""
    rate: float
    """Jobs requeued a second."""
    state: State = "counting"
    total: int = 0
    """Jobs of the group."""
    done: int = 0
    """Jobs requeued or purged so far."""
    canary_id: str = ""
    message: str = ""
    started: float = 0.0
    beat: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether nothing will happen any more."""
        return self.state in ("done", "stopped") or time.time() - self.beat > _SILENT

    @property
    def left(self) -> timedelta | None:
        """How long the rest will take at its pace; None when nothing goes on at a pace."""
        if self.mode != "requeue" or self.state != "running" or self.ended:
            return None
        return timedelta(seconds=(self.total - self.done) / self.rate)


def start(
    cause: str,
    title: str,
    mode: Mode,
    *,
    canary: bool = True,
    rate: float = RATE,
    connection: redis.Redis | None = None,
) -> Repair:
    """Writes down a repair; :func:`run` makes it happen.

    Args:
        cause: the group's id.
        title: what people see.
        mode: ``dry-run`` only counts.
        canary: requeue one job first, and the others only when it is done.
        rate: jobs requeued a second, so that what was down is not knocked down again.
        connection: another Redis than that of REDIS_URL.
    """
    client = client_of(connection)
    now = time.time()
    repair = Repair(
        id=secrets.token_hex(6), cause=cause, title=title[:300], mode=mode, canary=canary, rate=max(rate, 0.1),
        started=now, beat=now,
    )  # fmt: skip
    _save(repair, client)
    with client.pipeline(transaction=False) as pipeline:
        pipeline.zadd(keys.REPAIRS, {repair.id: now})
        pipeline.zremrangebyrank(keys.REPAIRS, 0, -21)
        pipeline.expire(keys.REPAIRS, _KEPT)
        pipeline.execute()
    return repair


def find(repair_id: str, connection: redis.Redis | None = None) -> Repair | None:
    """The repair of this id, as far as it is."""
    return _restore(client_of(connection).hgetall(keys.repair(repair_id)))


def recent(connection: redis.Redis | None = None) -> list[Repair]:
    """The last repairs, newest first."""
    client = client_of(connection)
    ids = [job_id.decode(errors="replace") for job_id in cast("list[bytes]", client.zrevrange(keys.REPAIRS, 0, 9))]
    with client.pipeline(transaction=False) as pipeline:
        for repair_id in ids:
            pipeline.hgetall(keys.repair(repair_id))
        answers = pipeline.execute(raise_on_error=False)
    return [repair for raw in answers if (repair := _restore(raw)) is not None]


def stop(repair_id: str, connection: redis.Redis | None = None) -> None:
    """Ends a repair after its present step; what it requeued stays requeued."""
    client = client_of(connection)
    if client.exists(keys.repair(repair_id)):
        client.hset(keys.repair(repair_id), "stop", "1")


def run(repair: Repair, connection: redis.Redis, seen: Callable[[Repair], None] = lambda _repair: None) -> Repair:
    """Makes ``repair`` happen, from here to its end; ``seen`` is called at every step."""

    def say(**changes: Any) -> None:
        nonlocal repair
        repair = replace(repair, beat=time.time(), **changes)
        _save(repair, connection)
        seen(repair)

    def stopped() -> bool:
        return bool(connection.hexists(keys.repair(repair.id), "stop"))

    def change(what: Callable[..., list[str]], job_ids: list[str]) -> int:
        """Those that have not become dead of something else meanwhile."""
        members = [x.example.job_id for x in read(job_ids, connection) if repair.cause in x.cause.ids]
        return len(what(members, connection=connection))

    found = by_cause(repair.cause, connection)
    say(total=sum(map(len, found.values())))
    if repair.mode == "dry-run":
        say(state="done", message=f"{repair.total:,} jobs belong to this group; nothing was changed")
        return repair
    ids = oldest_first(found, connection)
    if repair.mode == "purge":
        _purge(ids, partial(change, purge), say, stopped)
        return repair
    if repair.canary and ids:
        first = ids.pop(0)
        while not (sent := change(requeue, [first])) and ids:
            first = ids.pop(0)
        if not sent:
            say(state="done", message="none of them is dead of this any more; nothing was changed")
            return repair
        say(state="canary", canary_id=first, done=sent)
        fault = _watch(first, connection, say, stopped)
        if fault:
            say(state="stopped", message=f"{fault}; the others were left alone")
            return repair
    _pace(ids, repair, partial(change, requeue), say, stopped)
    return repair


def _watch(job_id: str, connection: redis.Redis, say: Callable[..., None], stopped: Callable[[], bool]) -> str | None:
    """Waits for the canary; why the others must not follow, or None."""
    deadline = time.monotonic() + CANARY_SECONDS
    while time.monotonic() < deadline:
        status = connection.hget(job_key(job_id), "status")
        if status in (None, b"finished"):  # None: done, and no longer kept
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


def _pace(
    ids: list[str],
    repair: Repair,
    again: Callable[[list[str]], int],
    say: Callable[..., None],
    stopped: Callable[[], bool],
) -> None:
    began, sent, done = time.monotonic(), 0, repair.done
    say(state="running", message="")
    while sent < len(ids):
        if stopped():
            say(state="stopped", message=f"stopped by hand; {done:,} jobs were requeued")
            return
        due = min(len(ids), int((time.monotonic() - began) * repair.rate) + 1, sent + 1000)
        if due > sent:
            done += again(ids[sent:due])
            sent = due
            say(done=done)
        if sent < len(ids):
            time.sleep(min(_STEP, 1 / repair.rate))
    say(state="done", message=f"{done:,} jobs were requeued")


def _save(repair: Repair, client: redis.Redis) -> None:
    name = keys.repair(repair.id)
    values: dict[Any, Any] = {
        field: int(value) if isinstance(value, bool) else value for field, value in asdict(repair).items()
    }
    with client.pipeline(transaction=False) as pipeline:
        pipeline.hset(name, mapping=values)
        pipeline.expire(name, _KEPT)
        pipeline.execute()


def _restore(raw: object) -> Repair | None:
    """The repair that a hash holds; None for what is no repair of ours."""
    if not isinstance(raw, dict):
        return None
    texts = {name.decode(errors="replace"): value.decode(errors="replace") for name, value in raw.items()}
    readers: dict[str, Callable[[str], Any]] = {
        "canary": lambda text: text == "1", "rate": float, "total": int, "done": int, "started": float, "beat": float,
    }  # fmt: skip
    known = {field.name for field in fields(Repair)}
    try:
        return Repair(**{name: readers.get(name, str)(text) for name, text in texts.items() if name in known})
    except (ValueError, TypeError):  # a field is missing, or is no number
        return None
