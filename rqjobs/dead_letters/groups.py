"""Failure groups: all kept dead letters, counted by queue, error and destination."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

import redis

from rqjobs.broker import keys
from rqjobs.broker.connection import client_of
from rqjobs.broker.job_records import id_text
from rqjobs.broker.rq_schema import key, run_script
from rqjobs.dead_letters import index as dead_index
from rqjobs.dead_letters.entries import Example, Letter, read
from rqjobs.dead_letters.fingerprint import Fingerprint, scores_of
from rqjobs.policies import get_policy, lanes_of

MANY = 5
"""The number of destinations with the same error from which they form one group."""

MOST = 300
"""The most groups, and parts of a group, that :func:`look` describes, biggest first; the others are counted."""

_EXAMPLES = 5
_PAGE = 5000  # the most entries that one script call reads: about 10 ms of Redis' time
_PART = 28  # the number of bits of a score for the destination


@dataclass(frozen=True, kw_only=True)
class FailureGroup:
    """The dead letters of one fingerprint, or of one error at many destinations."""

    fingerprint: Fingerprint
    count: int
    newest: datetime | None
    oldest: datetime | None
    examples: tuple[Example, ...]
    """The five newest dead letters."""
    destinations: int = 1
    """The number of destinations with this error."""
    parts: tuple[FailureGroup, ...] = ()
    """The groups of the single destinations, if there are many, the biggest first; only from :func:`find`."""

    @property
    def destination(self) -> str:
        """The destination, or the number of destinations: ``12 destinations``."""
        return f"{self.destinations:,} destinations" if self.destinations > 1 else self.fingerprint.destination


@dataclass(frozen=True, kw_only=True)
class Look:
    """The result of :func:`look`."""

    groups: tuple[FailureGroup, ...]
    """At most 300 groups, the biggest first."""
    more: int
    """The number of further, smaller groups."""
    grouped: int
    """The number of counted dead letters: less than ``total`` while the index is being built."""
    total: int
    """The number of dead letters."""


@dataclass
class _Sum:
    """The dead letters of one fingerprint, as counted by the scripts."""

    score: int
    count: int = 0
    newest: list[tuple[float, str]] = field(default_factory=list)
    """The scores of the newest (the time of death plus a constant) and their ids, newest first."""
    oldest: list[tuple[float, str]] = field(default_factory=list)

    def add(self, other: _Sum) -> None:
        """Adds the dead letters of ``other``."""
        self.count += other.count
        self.newest = sorted([*self.newest, *other.newest], reverse=True)[:_EXAMPLES]
        self.oldest = sorted([*self.oldest, *other.oldest])[:1]


def look(
    queue: str | None = None, text: str = "", *, group_id: str | None = None, connection: redis.Redis | None = None
) -> Look:
    """Returns the failure groups of ``queue``, or of all queues.

    Args:
        queue: a queue; all by default.
        text: count only dead letters with this text, in any case, in their id, label, error (its first 1,000
            characters) or destination.
        group_id: only the group with this id, with the groups of its destinations in ``parts``.
        connection: another Redis than that of REDIS_URL.

    Raises:
        UnknownQueue: there is no such queue.
    """
    client = client_of(connection)
    lanes = lanes_of(get_policy(queue).name if queue else None)
    dead_index.sync(lanes, client, most=dead_index.READ_AT_A_LOOK)
    with client.pipeline(transaction=False) as pipeline:
        for lane in lanes:
            pipeline.zcard(key("failed", lane))
        sizes = dict(zip(lanes, pipeline.execute(), strict=True))
    lanes = [lane for lane in lanes if sizes[lane]]
    sums, grouped = _sums(lanes, "", client)
    if text:
        sums = _with_text(sums, _sums(lanes, text, client)[0], text, client)
    if group_id is not None:
        sums = _of_group(sums, group_id)
    groups, more = _groups(sums, client, parts=group_id is not None)
    return Look(groups=groups, more=more, grouped=grouped, total=sum(sizes.values()))


def find(group_id: str, connection: redis.Redis | None = None) -> FailureGroup | None:
    """Returns the group with this id, or the part of one; None if it has no dead letters."""
    return next(iter(look(group_id=group_id, connection=connection).groups), None)


def _sums(lanes: list[str], text: str, client: redis.Redis) -> tuple[dict[int, _Sum], int]:
    """Returns the counts by score, and the number of entries that were read."""
    sums: dict[int, _Sum] = {}
    grouped = 0
    for lane in lanes:
        start = 0
        while True:
            arguments = [keys.PREFIX, lane, text.lower(), start, start + _PAGE - 1]
            looked, *rows = run_script("dead_groups", client, arguments)
            grouped += looked
            for score, count, *times in rows:
                pairs = [(float(died), id_text(job_id)) for died, job_id in zip(times[::2], times[1::2], strict=True)]
                row = _Sum(int(score), count, pairs[1:], pairs[:1])
                sums.setdefault(row.score, _Sum(row.score)).add(row)
            if looked < _PAGE:
                break
            start += _PAGE
    return sums, grouped


def _with_text(every: dict[int, _Sum], matching: dict[int, _Sum], text: str, client: redis.Redis) -> dict[int, _Sum]:
    """Returns the dead letters that match, and all of the groups whose destination matches."""
    biggest = _biggest(list(every.values()))
    letters = _read(biggest, client)
    by_destination = {
        each.score: each
        for each in biggest
        if (letter := letters.get(each.newest[0][1])) and text.lower() in letter.fingerprint.destination.lower()
    }
    return {**matching, **by_destination}


def _read(sums: Iterable[_Sum], client: redis.Redis) -> dict[str, Letter]:
    """Returns the newest and the oldest dead letters of these groups, by id."""
    ids = dict.fromkeys(job_id for each in sums for _died, job_id in (*each.newest, *each.oldest))
    return {letter.example.job_id: letter for letter in read(list(ids), client)}


def _of_group(sums: dict[int, _Sum], group_id: str) -> dict[int, _Sum]:
    try:
        first, last = scores_of(group_id)
    except ValueError:
        return {}
    return {score: each for score, each in sums.items() if first <= score <= last}


def _groups(sums: dict[int, _Sum], client: redis.Redis, *, parts: bool) -> tuple[tuple[FailureGroup, ...], int]:
    by_error: defaultdict[int, list[_Sum]] = defaultdict(list)
    for each in sums.values():
        by_error[each.score >> _PART].append(each)
    chosen: list[list[_Sum]] = []
    for members in by_error.values():
        chosen += [members] if len(members) >= MANY else [[each] for each in members]
    chosen.sort(key=lambda members: -sum(each.count for each in members))
    shown = [(_together(members), members) for members in chosen[:MOST]]
    described = [whole for whole, _members in shown]
    if parts:
        described += [each for _whole, members in shown for each in _biggest(members)]
    letters = _read(described, client)
    found = [group for whole, members in shown if (group := _group(whole, members, letters, parts=parts)) is not None]
    return tuple(sorted(found, key=lambda group: (-group.count, group.fingerprint))), len(chosen) - len(shown)


def _together(members: list[_Sum]) -> _Sum:
    whole = _Sum(members[0].score)
    for each in members:
        whole.add(each)
    return whole


def _biggest(members: list[_Sum]) -> list[_Sum]:
    return sorted(members, key=lambda each: -each.count)[:MOST]


def _group(whole: _Sum, members: list[_Sum], letters: dict[str, Letter], *, parts: bool) -> FailureGroup | None:
    examples = [letters[job_id] for _died, job_id in whole.newest if job_id in letters]
    if not examples:  # they were deleted or requeued
        return None
    oldest = letters.get(whole.oldest[0][1], examples[-1])
    fingerprint, shared = examples[0].fingerprint, len(members) > 1
    small = [_group(each, [each], letters, parts=False) for each in _biggest(members)] if parts and shared else []
    return FailureGroup(
        fingerprint=fingerprint.everywhere if shared else fingerprint,
        count=whole.count,
        newest=examples[0].example.failed_at,
        oldest=oldest.example.failed_at,
        examples=tuple(each.example for each in examples),
        destinations=len(members),
        parts=tuple(each for each in small if each is not None),
    )
