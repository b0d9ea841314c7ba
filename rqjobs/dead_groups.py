"""Dead letters in groups of queue, error and destination: what died of one cause is mended in one go."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import redis
from rq.utils import as_text

from rqjobs.connection import get_connection
from rqjobs.history import reason_of_entry
from rqjobs.layout import decode_data, job_key, key, results_key
from rqjobs.queues import base_queue, get_policy, lanes, policies

SAMPLE = 500
"""How many of the newest dead letters of a lane are grouped for a page: as many as are kept by default."""

EVERYWHERE = "*"
"""Stands for every destination: when our own network was down, all of them share one error."""

_MANY = 5  # destinations that share an error are one group from this number on
_BUDGET = 1000  # jobs that are read at one look: a page stays fast, and the next look goes on
_EXAMPLES = 5
_REMEMBERED = 50_000
_PAGE = 500

# What differs between failures of one cause: ids, addresses, counts, times. Status codes stay (550, 5.7.8).
_VARIABLE = re.compile(
    r"\b\d{1,3}(?:\.\d{1,3}){3}\b|[0-9a-f]{8}-[0-9a-f-]{27}|0x[0-9a-fA-F]+|\b(?=[0-9a-z]*\d)[0-9a-z]{12,}\b"
    r"|(?<![\d.])\d+\.\d+(?!\.?\d)|\b\d{4,}\b|\b\d+(?= m?s\b)|[\w.+-]+@[\w.-]+"
)


class Cause(NamedTuple):
    """What the dead letters of a group have in common."""

    queue: str
    error: str
    """The last error, with what differs from job to job left out."""
    destination: str
    """A host, a mail domain, or what else the jobs aim at; may be empty."""

    @property
    def id(self) -> str:
        """The cause in URLs and on the command line."""
        return sha256("\0".join(self).encode()).hexdigest()[:12]

    @property
    def everywhere(self) -> Cause:
        """The same error of the same queue, whatever the destination."""
        return self._replace(destination=EVERYWHERE)


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


class _Letter(NamedTuple):
    cause: Cause
    example: Example

    @property
    def text(self) -> str:
        """What is looked through for words."""
        return f"{self.example.job_id} {self.example.label} {self.example.reason} {self.cause.destination}".lower()


_known: dict[tuple[str, float], _Letter] = {}
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
    listed = [
        (lane, as_text(job_id), score)
        for lane, found in zip(names, answers[1::2], strict=True)
        for job_id, score in found
    ]
    unread = [(lane, job_id, score) for lane, job_id, score in listed if (job_id, score) not in _known][:_BUDGET]
    _remember(unread, client)
    letters = [letter for _lane, job_id, score in listed if (letter := _known.get((job_id, score))) is not None]
    meant = [letter for letter in letters if words.lower() in letter.text] if words else letters
    return Look(groups=tuple(_group(meant)), grouped=len(letters), total=sum(answers[::2]))


def members(cause_id: str, connection: redis.Redis | None = None) -> Iterator[list[str]]:
    """The ids of every dead letter with this cause, oldest first, a page at a time: all of them are read."""
    client = connection or get_connection()
    for policy in policies():
        for lane in lanes(policy.name):
            registry = key("failed", lane)
            everything = [as_text(job_id) for job_id in cast("list[bytes]", client.zrange(registry, 0, -1))]
            for start in range(0, len(everything), _PAGE):
                page = [(lane, job_id, 0.0) for job_id in everything[start : start + _PAGE]]
                yield [
                    letter.example.job_id
                    for letter in _read(page, client)
                    if cause_id in (letter.cause.id, letter.cause.everywhere.id)
                ]


def _remember(unread: list[tuple[str, str, float]], client: redis.Redis) -> None:
    if not unread:
        return
    scores = {job_id: score for _lane, job_id, score in unread}
    letters = _read(unread, client)
    with _lock:
        if len(_known) > _REMEMBERED:
            _known.clear()
        for letter in letters:
            _known[letter.example.job_id, scores[letter.example.job_id]] = letter


def _read(entries: list[tuple[str, str, float]], client: redis.Redis) -> list[_Letter]:
    """Only what groups need, raw: a whole RQ job each would take ten times as long."""
    with client.pipeline(transaction=False) as pipeline:
        for _lane, job_id, _score in entries:
            pipeline.hmget(job_key(job_id), "data", "description", "ended_at")
            pipeline.xrevrange(results_key(job_id), count=1)
        answers = pipeline.execute()
    letters = []
    for (lane, job_id, _score), (data, description, ended), results in zip(
        entries, answers[::2], answers[1::2], strict=True
    ):
        if data is None:
            continue
        reason = reason_of_entry(results[0][1] if results else {})
        example = Example(
            job_id=job_id,
            label=as_text(description) if description else job_id,
            reason=reason,
            failed_at=_moment(ended),
        )
        letters.append(_Letter(Cause(base_queue(lane), generalize(reason), destination(decode_data(data))), example))
    return letters


def generalize(reason: str) -> str:
    """``reason`` without what differs between failures of one cause: ids, addresses, long numbers, times."""
    return _VARIABLE.sub("…", " ".join(reason.split()))[:200]


def destination(payload: dict[str, Any] | None) -> str:
    """What a job aims at: the host of its URL, the domain of its mail, or its kind within the queue."""
    if payload is None:
        return ""
    url, to = payload.get("url"), payload.get("to")
    if isinstance(url, str):
        try:
            return urlsplit(url).netloc[:100]
        except ValueError:
            return ""
    to = to[0] if isinstance(to, list) and to else to
    if isinstance(to, str):
        return to.rpartition("@")[2].rstrip(">")[:100]
    words = [payload.get(name) for name in ("type", "action", "data_type", "export_type")]
    return " ".join(str(word)[:40] for word in words if isinstance(word, str))


def _moment(stamp: bytes | None) -> datetime | None:
    if not stamp:
        return None
    try:
        return datetime.fromisoformat(as_text(stamp))
    except ValueError:
        return None


def _group(letters: Iterable[_Letter]) -> list[Group]:
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
