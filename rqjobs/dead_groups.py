"""Dead letters in groups of queue, error and destination: what died of one cause is mended in one go."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import redis
from rq.utils import as_text

from rqjobs.causes import Cause, cause_of
from rqjobs.connection import get_connection
from rqjobs.history import reason_of_entry
from rqjobs.layout import decode_data, job_key, key, results_key
from rqjobs.queues import base_queue, get_policy, lanes, policies
from rqjobs.records import id_text

SAMPLE = 500
"""How many of the newest dead letters of a lane are grouped for a page: as many as are kept by default."""

_MANY = 5  # destinations that share an error are one group from this number on
_BUDGET = 1000  # jobs that are read at one look: a page stays fast, and the next look goes on
_EXAMPLES = 5
_REMEMBERED = 50_000


@dataclass(frozen=True, kw_only=True)
class Example:
    """One dead letter of a group, as a list shows it."""

    job_id: str
    label: str
    reason: str
    failed_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Group:
    """Dead letters with one cause."""

    cause: Cause
    count: int
    newest: datetime | None
    oldest: datetime | None
    examples: tuple[Example, ...]
    """The newest few."""
    parts: tuple[Group, ...] = ()
    """Of an error that many destinations share: the groups of each, the biggest first."""

    @property
    def destination(self) -> str:
        """As lists say it: ``12 destinations``, or the one."""
        return f"{len(self.parts):,} destinations" if self.parts else self.cause.destination


@dataclass(frozen=True, kw_only=True)
class Look:
    """The groups as one look found them."""

    groups: tuple[Group, ...]
    """The biggest first."""
    grouped: int
    """How many dead letters were looked at."""
    total: int
    """How many there are."""

    def find(self, cause_id: str) -> Group | None:
        """The group of this cause, or the part of one."""
        every = (each for group in self.groups for each in (group, *group.parts))
        return next((group for group in every if group.cause.id == cause_id), None)


class Letter(NamedTuple):
    """A dead letter, as far as groups need it."""

    cause: Cause
    example: Example

    @property
    def text(self) -> str:
        """What is looked through for words."""
        return f"{self.example.job_id} {self.example.label} {self.example.reason} {self.cause.destination}".lower()


_known: dict[tuple[str, float], Letter] = {}
_lock = threading.Lock()


def look(queue: str | None = None, words: str = "", connection: redis.Redis | None = None) -> Look:
    """The groups among the newest 500 dead letters of each lane, of ``queue`` or of all.

    With ``words``, only those whose id, label, error or destination holds them, in any case.

    What was read once is remembered in this process, and one call reads a thousand at most: with more than that
    unread, ``grouped`` is below what will be found by the next call.

    Raises:
        UnknownQueue: there is no such queue.
    """
    client = connection or get_connection()
    chosen = [get_policy(queue)] if queue else policies()
    names = [lane for policy in chosen for lane in lanes(policy.name)]
    with client.pipeline(transaction=False) as pipeline:
        for lane in names:
            pipeline.zcard(key("failed", lane))
            pipeline.zrevrange(key("failed", lane), 0, SAMPLE - 1, withscores=True)
        answers = pipeline.execute()
    listed = [(id_text(job_id), score) for found in answers[1::2] for job_id, score in found]
    _remember([each for each in listed if each not in _known][:_BUDGET], client)
    letters = [letter for each in listed if (letter := _known.get(each)) is not None]
    meant = [letter for letter in letters if words.lower() in letter.text] if words else letters
    return Look(groups=tuple(_group(meant)), grouped=len(letters), total=sum(answers[::2]))


def forget(job_id: str) -> None:
    """It may belong to another group now; what other processes remember of it stays until they end."""
    with _lock:
        for each in [each for each in _known if each[0] == job_id]:
            del _known[each]


def _remember(unread: list[tuple[str, float]], client: redis.Redis) -> None:
    if not unread:
        return
    scores = dict(unread)
    letters = read(list(scores), client)
    with _lock:
        if len(_known) > _REMEMBERED:
            _known.clear()
        for letter in letters:
            _known[letter.example.job_id, scores[letter.example.job_id]] = letter


def read(job_ids: Sequence[str], connection: redis.Redis) -> list[Letter]:
    """These dead letters; an id without a job is left out, and one whose keys cannot be read.

    Only what groups need, raw: a whole RQ job each would take ten times as long.
    """
    with connection.pipeline(transaction=False) as pipeline:
        for job_id in job_ids:
            pipeline.hmget(job_key(job_id), "origin", "data", "description", "ended_at")
            pipeline.xrevrange(results_key(job_id), count=1)
        answers = pipeline.execute(raise_on_error=False)
    letters = []
    for job_id, fields, results in zip(job_ids, answers[::2], answers[1::2], strict=True):
        if isinstance(fields, Exception) or isinstance(results, Exception):
            continue  # keys of another type than RQ's
        lane, data, description, ended = fields
        if data is None or lane is None:
            continue
        reason = reason_of_entry(results[0][1] if results else {})
        example = Example(
            job_id=job_id,
            label=description.decode(errors="replace") if description else job_id,
            reason=reason,
            failed_at=_moment(ended),
        )
        letters.append(Letter(cause_of(base_queue(lane.decode(errors="replace")), reason, decode_data(data)), example))
    return letters


def _moment(stamp: bytes | None) -> datetime | None:
    if not stamp:
        return None
    try:
        return datetime.fromisoformat(as_text(stamp))
    except ValueError:
        return None


def _group(letters: Iterable[Letter]) -> list[Group]:
    by_cause: dict[Cause, list[Example]] = {}
    for letter in letters:
        by_cause.setdefault(letter.cause, []).append(letter.example)
    by_error: dict[Cause, list[Group]] = {}
    for cause, found in by_cause.items():
        by_error.setdefault(cause.everywhere, []).append(_of(cause, found))
    groups = []
    for everywhere, parts in by_error.items():
        if len(parts) < _MANY:
            groups += parts
        else:
            found = [example for part in parts for example in by_cause[part.cause]]
            groups.append(_of(everywhere, found, parts=tuple(_biggest_first(parts))))
    return _biggest_first(groups)


def _of(cause: Cause, found: list[Example], parts: tuple[Group, ...] = ()) -> Group:
    found.sort(key=lambda example: example.failed_at or datetime.min.replace(tzinfo=UTC), reverse=True)
    return Group(
        cause=cause,
        count=len(found),
        newest=found[0].failed_at,
        oldest=found[-1].failed_at,
        examples=tuple(found[:_EXAMPLES]),
        parts=parts,
    )


def _biggest_first(groups: list[Group]) -> list[Group]:
    return sorted(groups, key=lambda group: (-group.count, group.cause))
