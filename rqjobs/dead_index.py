"""Which dead letters died of a cause, or of a reason: found in an index, as to read 100,000 of them takes seconds.

Each lane has two keys with an entry for each of its dead letters, kept by the scripts that bury jobs and let them out.
What others do, such as RQ's own commands and jobs that expire, shows in the number of entries. Then :func:`mend` reads
what is missing; an entry that is out of date is found out by those who act on it, as they read the job before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import redis
from rq.utils import as_text

from rqjobs import keys
from rqjobs.causes import Cause, score_of, scores_of
from rqjobs.connection import get_connection
from rqjobs.dead_groups import read
from rqjobs.layout import key
from rqjobs.queues import lanes_of

LONGEST = 1000
"""Characters of an error that are looked through."""

Found = dict[str, list[bytes]]
"""The ids of dead letters by lane, in no order."""

_PAGE = 1000
_T = TypeVar("_T")


def entry(cause: Cause, reason: str) -> str:
    """What finish.lua writes of a dead letter: its place among the causes, and its reason."""
    return f"{score_of(cause.id)} {_small(reason)}"


def add(lane: str, letters: Sequence[tuple[str, Cause, str]], connection: redis.Redis) -> None:
    """Makes an entry for each of these dead letters (id, cause and reason)."""
    if letters:
        with connection.pipeline() as pipeline:
            pipeline.zadd(keys.dead_causes(lane), {job_id: score_of(cause.id) for job_id, cause, _reason in letters})
            pipeline.hset(
                keys.dead_reasons(lane), mapping={job_id: _small(reason) for job_id, _cause, reason in letters}
            )
            pipeline.execute()


def by_cause(cause_id: str, connection: redis.Redis | None = None) -> Found:
    """Every dead letter of this group, with its destination or everywhere."""
    client = connection or get_connection()
    try:
        first, last = scores_of(cause_id)
    except ValueError:
        return {}
    lanes = lanes_of(None)
    mend(lanes, client)
    with client.pipeline(transaction=False) as pipeline:
        for lane in lanes:
            pipeline.zrangebyscore(keys.dead_causes(lane), first, last)
        return dict(zip(lanes, pipeline.execute(), strict=True))


def by_reason(text: str, queue: str | None = None, connection: redis.Redis | None = None) -> Found:
    """Every dead letter whose last error has ``text`` in its first 1,000 characters, in any case.

    Raises:
        UnknownQueue: there is no such queue.
    """
    client = connection or get_connection()
    lanes, wanted, found = lanes_of(queue), _wanted(text), {}
    mend(lanes, client)
    for lane in lanes:
        with client.pipeline() as pipeline:  # in one step: only then both lists have one order
            pipeline.hkeys(keys.dead_reasons(lane))
            pipeline.hvals(keys.dead_reasons(lane))
            pairs = zip(*pipeline.execute(), strict=True)
        found[lane] = [job_id for job_id, reason in pairs if wanted in reason]
    return found


def may_have(text: str, lane: str, job_ids: list[str], connection: redis.Redis) -> list[str]:
    """Those of the dead letters of which :func:`by_reason` would say so, and those without an entry."""
    reasons: Any = connection.hmget(keys.dead_reasons(lane), job_ids)
    wanted = _wanted(text)
    return [job_id for job_id, reason in zip(job_ids, reasons, strict=True) if reason is None or wanted in reason]


def oldest_first(found: Found, connection: redis.Redis | None = None) -> list[str]:
    """The ids in the order in which the jobs died, lane by lane, without those that are not dead any more."""
    client = connection or get_connection()
    ordered: list[str] = []
    for lane, ids in found.items():
        dead: list[tuple[float, bytes]] = []
        for page in _pages(ids):
            members: Any = list(page)
            scores = client.zmscore(key("failed", lane), members)
            dead += [(score, job_id) for score, job_id in zip(scores, page, strict=True) if score is not None]
        ordered += [as_text(job_id) for _score, job_id in sorted(dead)]
    return ordered


def mend(lanes: list[str], connection: redis.Redis, *, most: int | None = None) -> None:
    """Makes the index right where its number of entries is not that of the dead letters.

    Drops the entries of jobs that are not dead, and reads the dead letters that have none: ``most`` a lane, or all.
    What workers do meanwhile may be undone by it; the next look tells that again.
    """
    with connection.pipeline() as pipeline:
        for lane in lanes:
            pipeline.zcard(key("failed", lane))
            pipeline.zcard(keys.dead_causes(lane))
            pipeline.hlen(keys.dead_reasons(lane))
        numbers = pipeline.execute(raise_on_error=False)
    for lane, dead, *entries in zip(lanes, numbers[::3], numbers[1::3], numbers[2::3], strict=True):
        if any(isinstance(number, redis.exceptions.ResponseError) for number in entries):  # keys of another type
            connection.delete(keys.dead_causes(lane), keys.dead_reasons(lane))
        if entries != [dead, dead]:
            _mend(lane, connection, most)


def _mend(lane: str, connection: redis.Redis, most: int | None) -> None:
    names = (keys.dead_causes(lane), keys.dead_reasons(lane))
    with connection.pipeline() as pipeline:
        pipeline.zrange(names[0], 0, -1)
        pipeline.hkeys(names[1])
        pipeline.zrange(key("failed", lane), 0, -1)
        causes, reasons, dead = map(set, pipeline.execute())
    for page in _pages((causes | reasons) - dead):
        connection.zrem(names[0], *page)
        connection.hdel(names[1], *page)
    for page in _pages(islice(dead - (causes & reasons), most)):
        letters = read([as_text(job_id) for job_id in page], connection)
        add(lane, [(example.job_id, cause, example.reason) for cause, example in letters], connection)


def _wanted(text: str) -> bytes:
    return text.lower().encode(errors="surrogatepass")  # a terminal may send anything


def _small(reason: str) -> str:
    return reason[:LONGEST].lower()


def _pages(items: Iterable[_T]) -> Iterator[tuple[_T, ...]]:
    rest = iter(items)
    while page := tuple(islice(rest, _PAGE)):
        yield page
