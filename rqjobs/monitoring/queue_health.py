"""The health of the queues: read in two round trips, fast with any backlog, without changing anything."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import redis

from rqjobs.broker import keys
from rqjobs.broker.connection import client_of
from rqjobs.broker.holds import Away, read_holds, try_now
from rqjobs.broker.rq_schema import job_key, key, with_zone
from rqjobs.broker.rq_types import as_text
from rqjobs.broker.states import State
from rqjobs.broker.unreadable import Noted, reading
from rqjobs.config.durations import spell
from rqjobs.policies import base_queue, get_policy, lanes, policies

OLDEST_LIMIT = timedelta(minutes=5)
"""A queue whose oldest waiting job is older than this is unhealthy."""

FULL = 0.85
"""The share of used memory above which Redis is unhealthy: a full Redis accepts no jobs."""

OVERDUE_LIMIT = timedelta(seconds=60)
"""If a delayed job is overdue for longer than this, no scheduler is running."""

RECENT = 15
"""Dead jobs of this many minutes make a queue unhealthy ..."""

MANY_DIED = 5
"""... if there are at least this many, and they are more than half of the completed jobs (by the minute metrics)."""

SILENT = 12.0
"""Seconds after which a worker counts as silent if it has not renewed its leases, which it does every 5 s."""

_LATEST = datetime.max.replace(tzinfo=UTC).timestamp() - 86400
"""Unix seconds from which on no time is shown: a forged score may be infinite."""

_LATELY = 60.0  # seconds for which a destination is shown whose pause is over and whose trial delivery is due


@dataclass(frozen=True, kw_only=True)
class QueueHealth:
    """The state of one queue at one moment, for all its lanes together."""

    name: str
    waiting: int
    """Jobs that a worker can claim now, jobs that wait for their group, and dependents that are being enqueued (RQ's
    ready registry).
    """
    active: int
    """Running jobs."""
    delayed: int
    """Delayed jobs, including retries."""
    failed: int
    """Dead jobs that are kept as dead letters."""
    completed: int
    """The total of done jobs."""
    failed_total: int
    """The total of jobs that died."""
    retried_total: int
    """The total of failed attempts that were retried."""
    dropped: int
    """The total of dead letters that were deleted because there were more than RQJOBS_KEEP_FAILED."""
    done_recently: int
    """Jobs done in the last 15 minutes."""
    died_recently: int
    """Jobs that died in the last 15 minutes."""
    paused: bool
    workers: int
    """Workers that listen to this queue."""
    oldest: timedelta | None
    """The wait of the oldest waiting job without a group; None if none waits."""
    overdue: timedelta
    """The time for which the earliest delayed job is overdue: it was not moved into its queue."""
    suspended: bool
    """Whether ``rq suspend`` has suspended all workers."""
    reasons: tuple[str, ...]
    """Why the queue is unhealthy, with the fix; empty if it is healthy. Includes unavailable dependencies if jobs wait.
    """
    away: tuple[Away, ...] = ()
    """The unavailable dependencies for which it is held."""

    @property
    def healthy(self) -> bool:
        """Whether the queue needs no action by a person."""
        return not self.reasons

    @property
    def dying(self) -> bool:
        """Whether at least five jobs, and more than half of the completed ones, died in the last 15 minutes."""
        return self.died_recently >= MANY_DIED and self.died_recently > self.done_recently

    @property
    def own_reasons(self) -> tuple[str, ...]:
        """The reasons without those of unavailable dependencies."""
        texts = {each.text for each in self.away}
        return tuple(reason for reason in self.reasons if reason not in texts)


def queue_health(connection: redis.Redis | None = None) -> list[QueueHealth]:
    """Returns the health of every queue: the five, then the app's.

    Raises:
        RedisUnavailable: Redis does not answer.
    """
    client = client_of(connection)
    with reading() as noted:
        found = _health(client)
    return [_with_unreadable(queue, noted) for queue in found] if noted else found


def _with_unreadable(queue: QueueHealth, noted: Noted) -> QueueHealth:
    """Returns ``queue`` with a reason for each key of the wrong type that belongs to it or to all queues."""
    own = (
        each.fault
        for name, each in noted.items()
        if name in (keys.PAUSED, keys.HOLDS) or base_queue(name.split(":", 2)[-1]) == queue.name
    )
    return replace(queue, reasons=(*queue.reasons, *sorted(own)))


def _health(client: redis.Redis) -> list[QueueHealth]:
    names = [policy.name for policy in policies()]
    pipeline = client.pipeline(transaction=False)
    pipeline.smembers(keys.PAUSED)
    pipeline.exists(key("suspended"))
    pipeline.time()
    pipeline.hgetall(keys.HOLDS)
    for name in names:
        pipeline.hgetall(keys.totals(name))
        for lane in lanes(name):
            pipeline.llen(key("queue", lane))
            pipeline.zcard(keys.group_waiting(lane))
            pipeline.zcard(key("ready", lane))
            pipeline.zcard(key("wip", lane))
            pipeline.zcard(key("scheduled", lane))
            pipeline.zcard(key("failed", lane))
            pipeline.lindex(key("queue", lane), 0)
            pipeline.zrange(key("scheduled", lane), 0, 0, withscores=True)
        pipeline.smembers(key("workers", name))
    answers = iter(pipeline.execute())
    paused = {name.decode(errors="replace") for name in next(answers)}
    suspended = bool(next(answers))
    seconds, micros = next(answers)
    now = seconds + micros / 1_000_000
    away = read_holds(next(answers), now - time.time())
    raw = [_Raw(name, answers, away) for name in names]
    return _assess(raw, paused, suspended, now, client)


def state_table(queues: Sequence[QueueHealth]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Returns the head and the rows of a table of ``queues``, with the number of jobs in each of the five states."""
    rows = [(each.name, each.waiting, each.active, each.delayed, each.failed, each.completed) for each in queues]
    return ("queue", State.WAITING, State.RUNNING, State.DELAYED, State.DEAD, State.DONE), rows


def fullness(connection: redis.Redis | None = None) -> str | None:
    """Returns why Redis will soon accept no more jobs, with the fix; None if it has free memory, or refuses INFO."""
    try:
        info: Any = client_of(connection).info("memory")
    except redis.exceptions.ResponseError:  # not allowed, for example by a managed Redis
        return None
    used, limit = int(info["used_memory"]), int(info.get("maxmemory") or 0) or int(info.get("total_system_memory") or 0)
    if not limit or used <= FULL * limit:
        return None
    return f"{used / limit:.0%} of {limit >> 20:,} MiB is used: raise maxmemory, or find what fills it"


@dataclass(frozen=True, kw_only=True)
class Parked:
    """A webhook destination that does not answer, so that deliveries to it are parked."""

    destination: str
    until: datetime
    """The time of the trial delivery."""
    jobs: int
    """The number of parked deliveries."""


def parked_destinations(connection: redis.Redis | None = None) -> list[Parked]:
    """Returns the destinations with parked deliveries, at most a hundred, the next trial delivery first."""
    client = client_of(connection)
    seconds, _micros = client.time()
    found: Any = client.zrangebyscore(keys.PARKED, seconds - _LATELY, "+inf", 0, 100, withscores=True)
    with client.pipeline(transaction=False) as pipeline:
        for name, _until in found:
            pipeline.zcard(keys.breaker_parked(as_text(name)))
        return [
            Parked(destination=as_text(name), until=datetime.fromtimestamp(min(until, _LATEST), UTC), jobs=jobs)
            for (name, until), jobs in zip(found, pipeline.execute(), strict=True)
        ]


def pause(queue: str, connection: redis.Redis | None = None) -> None:
    """Pauses ``queue``: workers claim none of its jobs until it is resumed. Running jobs continue, new ones wait.

    Raises:
        UnknownQueue: there is no such queue.
    """
    client_of(connection).sadd(keys.PAUSED, get_policy(queue).name)


def resume(queue: str, connection: redis.Redis | None = None) -> None:
    """Ends a pause, if there is one. If the queue is held for a dependency, the next trial starts at once.

    Raises:
        UnknownQueue: there is no such queue.
    """
    client, name = client_of(connection), get_policy(queue).name
    client.srem(keys.PAUSED, name)
    try_now(name, client)


class _Raw:
    """The responses of Redis for one queue."""

    def __init__(self, name: str, answers: Iterator[Any], away: Iterable[Away]) -> None:
        self.name = name
        self.away = tuple(each for each in away if each.queue == name)
        self.totals = {field.decode(errors="replace"): _number(value) for field, value in next(answers).items()}
        self.waiting = self.active = self.delayed = self.failed = 0
        self.heads: list[str] = []
        self.due: list[float] = []
        for _lane in lanes(name):
            self.waiting += next(answers) + next(answers) + next(answers)
            self.active += next(answers)
            self.delayed += next(answers)
            self.failed += next(answers)
            if (head := next(answers)) is not None:
                self.heads.append(head.decode(errors="replace"))
            self.due += [score for _job_id, score in next(answers) if math.isfinite(score)]
        self.workers = [worker.decode(errors="replace") for worker in next(answers)]


def _number(value: bytes) -> int:
    try:
        return int(value)
    except ValueError:
        return 0


def _assess(raw: list[_Raw], paused: set[str], suspended: bool, now: float, client: redis.Redis) -> list[QueueHealth]:
    """Returns the health of the queues; ``now`` is the time by Redis' clock."""
    pipeline = client.pipeline(transaction=False)
    heads = [head for queue in raw for head in queue.heads]
    workers = sorted({worker for queue in raw for worker in queue.workers})
    for head in heads:
        pipeline.hmget(job_key(head), "enqueued_at", "created_at")
    for worker in workers:
        pipeline.exists(worker)
    for worker in workers:
        pipeline.hmget(worker, "rqjobs_seen", "hostname", "pid")
        pipeline.scard(f"{worker}:executions")
    ended = [f"{queue.name}/{outcome}" for queue in raw for outcome in ("done", "dead")]
    newest = int(now // 60)
    for minute in range(newest - RECENT + 1, newest + 1):
        pipeline.hmget(keys.minute(minute), ended)
    answers = pipeline.execute(raise_on_error=False)
    since = {head: _since(stamps, now) for head, stamps in zip(heads, answers, strict=False)}
    minutes = answers[-RECENT:]
    del answers[: len(heads)], answers[-RECENT:]
    alive = {worker for worker, exists in zip(workers, answers, strict=False) if exists == 1}
    del answers[: len(workers)]
    silent = {
        worker: said
        for worker, record, running in zip(workers, answers[::2], answers[1::2], strict=True)
        if worker in alive and (said := _silence(record, running, now))
    }
    lately = dict(zip(ended, _added_up(minutes, len(ended)), strict=True))
    found = []
    for queue in raw:
        ages = [age for head in queue.heads if (age := since[head]) is not None]
        health = QueueHealth(
            name=queue.name,
            waiting=queue.waiting,
            active=queue.active,
            delayed=queue.delayed,
            failed=queue.failed,
            completed=queue.totals.get("completed", 0),
            failed_total=queue.totals.get("failed", 0),
            retried_total=queue.totals.get("retried", 0),
            dropped=queue.totals.get("dropped", 0),
            done_recently=lately[f"{queue.name}/done"],
            died_recently=lately[f"{queue.name}/dead"],
            paused=queue.name in paused,
            workers=sum(worker in alive for worker in queue.workers),
            oldest=max(ages, default=None),
            overdue=timedelta(seconds=max(0.0, now - min(queue.due))) if queue.due else timedelta(),
            suspended=suspended,
            reasons=(),
            away=queue.away,
        )
        frozen = tuple(silent[worker] for worker in queue.workers if worker in silent)
        found.append(replace(health, reasons=(*_reasons(health), *frozen)))
    return found


def _reasons(queue: QueueHealth) -> Iterator[str]:
    held = queue.away if queue.waiting + queue.active + queue.delayed else ()
    yield from (each.text for each in held)
    if queue.paused and queue.waiting:
        yield f"paused with {queue.waiting:,} waiting: rqjobs resume {queue.name}"
    elif queue.suspended and queue.waiting:
        yield "all workers are suspended: rq resume"
    elif queue.waiting + queue.active + queue.delayed and not queue.workers:
        yield "no worker listens: start one with rqjobs worker"
    elif queue.oldest is not None and queue.oldest > OLDEST_LIMIT and not held:
        yield f"the oldest job waits for {spell(queue.oldest)}: start more workers"
    if queue.overdue > OVERDUE_LIMIT and queue.workers:
        yield f"a delayed job is overdue for {spell(queue.overdue)}: no scheduler runs"
    if (deaths := reason_of_deaths(queue)) is not None:
        yield deaths


def reason_of_deaths(queue: QueueHealth) -> str | None:
    """Returns the reason if a queue is unhealthy because most of its jobs die, otherwise None."""
    if not queue.dying:
        return None
    ended = queue.died_recently + queue.done_recently
    return (
        f"{queue.died_recently:,} of {ended:,} jobs that ended in the last {RECENT} minutes died: "
        f"see why with rqjobs failed groups --queue {queue.name}"
    )


def _added_up(minutes: list[Any], width: int) -> list[int]:
    """Returns the sums of the minutes' columns; a minute whose key has the wrong type is ignored."""
    rows = [[_number(value or b"0") for value in row] for row in minutes if not isinstance(row, Exception)]
    return [sum(row[column] for row in rows) for column in range(width)]


def _silence(record: Any, running: Any, now: float) -> str | None:
    """Returns the fault of a worker that has jobs and does not renew their leases; None if it does."""
    if not isinstance(record, list) or not isinstance(running, int) or not running or not record[0]:
        return None
    seen, host, pid = (value.decode(errors="replace") if value else "?" for value in record)
    quiet = now - _number(seen.encode())
    if quiet < SILENT:
        return None
    return (
        f"a worker with {running:,} jobs gives no sign of life for {quiet:.0f} s: it is frozen or dead ({host}, {pid})"
    )


def _since(stamps: list[bytes | None] | Exception, now: float) -> timedelta | None:
    if isinstance(stamps, Exception):  # the job's key has the wrong type
        return None
    stamp = next((value for value in stamps if value), None)
    if stamp is None:
        return None
    try:
        moment = with_zone(datetime.fromisoformat(stamp.decode()))
    except ValueError:
        return None
    return max(timedelta(), datetime.fromtimestamp(now, UTC) - moment)
