"""The index of dead letters by fingerprint and by reason, because reading 100,000 dead letters takes seconds.

Each lane has two sorted sets with an entry for each of its dead letters, by fingerprint and by reason, and a hash with
the texts of the reasons. The scripts that make jobs dead or remove them update the index (lua/dead.lua). Changes by
others, such as RQ's commands and the expiry of jobs, show as a wrong number of entries; then :func:`sync` reads what is
missing. An outdated entry does no harm, because a job is read before it is changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import chain, islice
from typing import Any, TypeVar

import redis

from rqjobs.broker import keys
from rqjobs.broker.connection import client_of
from rqjobs.broker.job_records import id_text
from rqjobs.broker.rq_schema import key, run_script
from rqjobs.dead_letters.entries import read
from rqjobs.dead_letters.fingerprint import Fingerprint, score_of, scores_of
from rqjobs.policies import lanes_of

LONGEST = 1000
"""The most characters of an error that are searched."""

Found = dict[str, list[bytes]]
"""The ids of dead letters by lane, in no particular order."""

_PAGE = 1000
READ_AT_A_LOOK = 1000  # dead letters read for a page, so that it stays fast; the next page reads more
_READ_BY_WORKERS = 500  # dead letters read by a worker: about 25 ms beside its jobs
_MANY = 10_000  # from this number on, reading all reasons is faster than a command for each
_T = TypeVar("_T")


def entry(fingerprint: Fingerprint, reason: str) -> str:
    """Returns the entry that scripts write for a dead letter.

    It has the scores of its fingerprint and its reason, and the reason.
    """
    text = _small(reason)
    return f"{score_of(fingerprint.id)} {_number(text)} {text}"


def add(lane: str, letters: Sequence[tuple[str, Fingerprint, str]], connection: redis.Redis) -> None:
    """Writes an entry for each of these dead letters (id, fingerprint and reason)."""
    if letters:
        texts = {job_id: _small(reason) for job_id, _cause, reason in letters}
        with connection.pipeline() as pipeline:
            pipeline.zadd(
                keys.dead_fingerprints(lane),
                {job_id: score_of(fingerprint.id) for job_id, fingerprint, _reason in letters},
            )
            pipeline.zadd(keys.dead_reasons(lane), {job_id: _number(text) for job_id, text in texts.items()})
            pipeline.hset(keys.dead_texts(lane), mapping={str(_number(text)): text for text in texts.values()})
            pipeline.execute()


def by_group(group_id: str, connection: redis.Redis | None = None) -> Found:
    """Returns all dead letters of this group, which has one destination or all."""
    client = client_of(connection)
    try:
        first, last = scores_of(group_id)
    except ValueError:
        return {}
    lanes = lanes_of(None)
    sync(lanes, client)
    with client.pipeline(transaction=False) as pipeline:
        for lane in lanes:
            pipeline.zrangebyscore(keys.dead_fingerprints(lane), first, last)
        return dict(zip(lanes, pipeline.execute(), strict=True))


def by_reason(text: str, queue: str | None = None, connection: redis.Redis | None = None) -> Found:
    """Returns all dead letters whose last error has ``text`` in its first 1,000 characters, in any case.

    Raises:
        UnknownQueue: there is no such queue.
    """
    client = client_of(connection)
    lanes, found = lanes_of(queue), {}
    sync(lanes, client)
    for lane in lanes:
        numbers = reasons_with(text, lane, client)
        name = keys.dead_reasons(lane)
        if len(numbers) > _MANY:  # the reason differs between jobs
            pairs: Any = client.zrange(name, 0, -1, withscores=True)
            found[lane] = [job_id for job_id, number in pairs if number in numbers]
        else:
            with client.pipeline(transaction=False) as pipeline:
                for number in numbers:
                    pipeline.zrangebyscore(name, number, number)
                found[lane] = list(chain.from_iterable(pipeline.execute()))
    return found


def reasons_with(text: str, lane: str, connection: redis.Redis) -> set[int]:
    """Returns the numbers of the reasons of ``lane`` that contain ``text``, in any case."""
    wanted = text.lower().encode(errors="surrogatepass")  # a terminal may send any bytes
    texts: Any = connection.hgetall(keys.dead_texts(lane))
    return {int(number) for number, reason in texts.items() if wanted in reason}


def may_have(numbers: set[int], lane: str, job_ids: list[str], connection: redis.Redis) -> list[str]:
    """Returns those of the dead letters whose reason is one of these, or unknown."""
    found = connection.zmscore(keys.dead_reasons(lane), job_ids)
    return [job_id for job_id, number in zip(job_ids, found, strict=True) if number is None or number in numbers]


def oldest_first(found: Found, connection: redis.Redis | None = None) -> list[str]:
    """Returns the ids in the order in which the jobs died, lane by lane, without jobs that are not dead any more."""
    client = client_of(connection)
    ordered: list[str] = []
    for lane, ids in found.items():
        dead: list[tuple[float, bytes]] = []
        for page in _pages(ids):
            members: Any = list(page)
            scores = client.zmscore(key("failed", lane), members)
            dead += [(score, job_id) for score, job_id in zip(scores, page, strict=True) if score is not None]
        ordered += [id_text(job_id) for _score, job_id in sorted(dead)]
    return ordered


def sync(lanes: list[str], connection: redis.Redis, *, upkeep: bool = False, most: int | None = None) -> None:
    """Updates the index of lanes where its number of entries differs from that of the dead letters.

    It drops the entries of jobs that are not dead, and reads the dead letters without an entry, at most ``most`` of
    each lane. With ``upkeep``, for workers, it also compares the ids, and reads at most 500 dead letters of a lane. It
    may undo a concurrent change of the index; the next call corrects that.
    """
    with connection.pipeline() as pipeline:
        for lane in lanes:
            pipeline.zcard(key("failed", lane))
            pipeline.zcard(keys.dead_fingerprints(lane))
            pipeline.zcard(keys.dead_reasons(lane))
            pipeline.hlen(keys.dead_texts(lane))
        answers = iter(pipeline.execute(raise_on_error=False))
    for lane in lanes:
        dead, causes, reasons, texts = islice(answers, 4)
        if isinstance(dead, redis.exceptions.ResponseError):  # of another type: nothing is known of its dead letters
            continue
        wrong = any(isinstance(number, redis.exceptions.ResponseError) for number in (causes, reasons, texts))
        if wrong or (texts == 0 and reasons):  # a key has the wrong type, or was deleted
            connection.delete(keys.dead_fingerprints(lane), keys.dead_reasons(lane), keys.dead_texts(lane))
            causes = reasons = 0
        if not dead == causes == reasons or (upkeep and dead):
            _sync_lane(lane, connection, _READ_BY_WORKERS if upkeep else most)


def _sync_lane(lane: str, connection: redis.Redis, most: int | None) -> None:
    names = (keys.dead_fingerprints(lane), keys.dead_reasons(lane))
    connection.unlink(keys.old_dead_fingerprints(lane))
    with connection.pipeline() as pipeline:
        for name in (*names, key("failed", lane)):
            pipeline.zrange(name, 0, -1)
        causes, reasons, dead = map(set, pipeline.execute())
    for page in _pages((causes | reasons) - dead):
        for name in names:
            connection.zrem(name, *page)
    for page in _pages(islice(dead - (causes & reasons), most)):
        letters = read([job_id.decode() for job_id in page if _readable(job_id)], connection)
        add(lane, [(example.job_id, fingerprint, example.reason) for fingerprint, example in letters], connection)
    pairs: Any = connection.zrange(names[1], 0, -1, withscores=True)
    texts: Any = connection.hkeys(keys.dead_texts(lane))
    unused = {int(number) for number in texts} - {int(number) for _job_id, number in pairs}
    for numbers in _pages(unused):  # they may be used again since
        run_script("drop_texts", connection, [keys.PREFIX, lane, *numbers])


def _readable(job_id: bytes) -> bool:
    try:
        job_id.decode()
    except UnicodeDecodeError:  # not an id that RQ makes
        return False
    return True


def _small(reason: str) -> str:
    return reason[:LONGEST].lower()


def _number(text: str) -> int:
    return int(sha256(text.encode()).hexdigest()[:13], 16)  # 52 bits, as a score has 53


def _pages(items: Iterable[_T]) -> Iterator[tuple[_T, ...]]:
    rest = iter(items)
    while page := tuple(islice(rest, _PAGE)):
        yield page
