"""The one place that writes jobs to Redis, and the places that may take them instead: a transaction, a test."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, NamedTuple, Protocol, cast

import redis
from rq.defaults import RQ_KEY_PREFIX
from rq.utils import as_text

from rqjobs.broker.clock_skew import skew
from rqjobs.broker.connection import ask, client_of, get_connection
from rqjobs.broker.job_signing import FIELD, sign, signs_jobs
from rqjobs.broker.rq_schema import pack_data, run_script, timestamp
from rqjobs.broker.scripts import load_script
from rqjobs.config.logs import event
from rqjobs.errors import DuplicateJob
from rqjobs.policies import base_queue

_CHUNK = 500  # jobs a Lua call: a call blocks Redis for some milliseconds at most
_LOOK = 50  # calls of one sender, after which it compares the clocks again

ROW_DELAY = "delay"
"""In the fields of an outbox row, beside the job's hash: the seconds from the row's creation until the job is due."""


@dataclass(frozen=True, eq=False, slots=True)
class Kind:
    """What jobs of one queue and the same options have in common; it travels once for all of them."""

    lane: str
    unique: bool
    fields: dict[str, str | int]
    """A part of their hashes."""


class Entry(NamedTuple):
    """One job as the script wants it, and what the caller gets back is made of."""

    kind: Kind
    job_id: str
    delay: float | None
    """Seconds from the writing, by Redis' clock, until it is due; None for at once."""
    data: bytes
    created_at: str
    description: str
    token: str = ""
    """The outbox row's id: an entry of the same token is written once, however often it is tried."""
    at: float | None = None
    """When it is due, in Unix seconds, in the place of ``delay``."""

    @property
    def is_delayed(self) -> bool:
        """Whether it waits for its time before it can run."""
        return self.delay is not None or self.at is not None


Defer = Callable[[Callable[[], None]], bool]
"""Given what is to be done after the commit: whether there is a transaction that it now waits for."""


class Capture(Protocol):
    """What a test has in the place of Redis (rqjobs.testing)."""

    def add(self, entries: Sequence[Entry]) -> None:
        """Takes jobs that would have been written to Redis, or to an outbox."""

    def wait(self, entries: Sequence[Entry]) -> None:
        """Learns of jobs that wait for a commit; they are added after it."""

    def has(self, job_id: str) -> bool:
        """Whether the id belonged to another job."""


_defer: Defer | None = None
_capture: Capture | None = None


def defer_with(defer: Defer | None) -> None:
    """Lets an integration hold jobs back until the transaction around them has committed."""
    global _defer  # noqa: PLW0603
    _defer = defer


def capture_with(capture: Capture | None) -> None:
    """Lets a test have the jobs instead of Redis."""
    global _capture  # noqa: PLW0603
    _capture = capture


def captured(entries: Sequence[Entry]) -> bool:
    """Gives the jobs to the test that captures them, if one does."""
    if _capture is None:
        return False
    _capture.add(entries)
    return True


def is_capturing() -> bool:
    """Whether a test has the jobs instead of Redis."""
    return _capture is not None


def is_captured(job_id: str) -> bool:
    """Whether a test has captured the job of this id."""
    return _capture is not None and _capture.has(job_id)


def write(entries: Sequence[Entry], connection: redis.Redis | None, *, on_commit: bool) -> redis.Redis:
    """Writes the jobs now or, with ``on_commit`` and inside a transaction that is known of, after its commit.

    Returns:
        The connection to read them by.

    Raises:
        DuplicateJob: naming the ids that were there already; after a commit this is only logged.
        RedisUnavailable: Redis does not answer.
    """
    if on_commit and _defer is not None and _defer(lambda: _write_after_commit(entries, connection)):
        if _capture is not None:
            _capture.wait(entries)
        return connection or later()
    if refused := write_now(entries, connection):
        raise DuplicateJob(refused)
    return connection or (later() if _capture is not None else get_connection())


def _write_after_commit(entries: Sequence[Entry], connection: redis.Redis | None) -> None:
    # The transaction stands: a job that is there already is what its id is for, and no reason to fail a request.
    if refused := write_now(entries, connection):
        event(logging.WARNING, "already enqueued", ids=",".join(refused))


def write_now(entries: Sequence[Entry], connection: redis.Redis | None) -> list[str]:
    """Writes the jobs in one round trip; returns the ids that existed already."""
    if captured(entries):
        return []
    try:
        sender = _idle.pop()
    except IndexError:
        sender = _Sender()
    sender.number += 1
    refused = _send(entries, connection, sender)
    if sender.sound:  # nor is it used again after an error
        _idle.append(sender)
    return refused


class _Sender:
    """The sender of one call at a time: by its receipt in Redis a call that is sent again is recognised (enqueue.lua).

    A receipt for each sender, not for each job, takes next to no memory: there are as many as calls at one moment.
    """

    __slots__ = ("behind", "name", "number", "sound")

    def __init__(self) -> None:
        self.name = os.urandom(8).hex()
        self.number = 0
        """Of its present call."""
        self.sound = True
        """Whether none of its calls can still be under way to Redis: after a fault its name is not used again."""
        self.behind = 0.0
        """Seconds that Redis' clock is ahead of ours."""


_idle: list[_Sender] = []
os.register_at_fork(after_in_child=_idle.clear)


def _send(entries: Sequence[Entry], connection: redis.Redis | None, sender: _Sender) -> list[str]:
    if len(entries) == 1 and connection is None and _send_one(entries[0], sender):
        return []
    client = client_of(connection)
    if behind := skew(client):
        entries = _dated(entries, behind)
    calls = []
    for start in range(0, len(entries), _CHUNK):
        name = f"{sender.name}-{start}" if start else sender.name
        calls.append([name, sender.number, *_arguments(entries[start : start + _CHUNK])])
    if len(calls) == 1:
        answers = [run_script("enqueue", client, calls[0])]
    else:
        with client.pipeline(transaction=False) as pipeline:
            for arguments in calls:
                run_script("enqueue", pipeline, arguments)
            answers = pipeline.execute()
    return [as_text(job_id) for answer in answers for job_id in answer]


def _send_one(entry: Entry, sender: _Sender) -> bool:
    """Writes the usual job, alone and to be run at once, in the shortest way; False if there is more to it."""
    kind, job_id, _delay, data, created_at, description, token, _at = entry
    if entry.is_delayed or token:
        return False
    own: tuple[str | bytes, ...] = ("data", pack_data(data), "created_at", created_at, "description", description)
    if signs_jobs():
        own += (FIELD, sign(base_queue(kind.lane), job_id, data))
    arguments = (kind.lane, job_id, sender.name, sender.number, *own, *chain.from_iterable(kind.fields.items()))
    if sender.number % _LOOK == 1:
        sender.behind = skew(get_connection())
    if sender.behind:
        arguments += ("enqueued_at", redis_timestamp(sender.behind))
    try:
        return bool(ask("EVALSHA", load_script("enqueue_one").sha, 0, RQ_KEY_PREFIX, *arguments))
    except redis.exceptions.RedisError:  # again, then: a call that did arrive is recognised
        sender.sound = False
        return bool(run_script("enqueue_one", get_connection(), arguments))


def _dated(entries: Sequence[Entry], behind: float) -> list[Entry]:
    """The entries with a time of enqueueing of their own: ours would be that of a wrong clock."""
    fields: dict[str, str | int] = {"enqueued_at": redis_timestamp(behind)}
    kinds = {entry.kind: replace(entry.kind, fields=entry.kind.fields | fields) for entry in entries}
    return [entry._replace(kind=kinds[entry.kind]) if not entry.is_delayed else entry for entry in entries]


def redis_timestamp(behind: float) -> str:
    """The time by Redis' clock, as RQ writes it; ``behind`` is its :func:`rqjobs.broker.clock_skew.skew`."""
    return timestamp(time.time_ns() // 1000 + round(behind * 1_000_000))


def _arguments(entries: Sequence[Entry]) -> list[Any]:
    numbers: dict[Kind, int] = {}
    arguments: list[Any] = []
    signed = signs_jobs()
    for kind, job_id, delay, data, created_at, description, token, at in entries:
        number = numbers.setdefault(kind, len(numbers) + 1)
        wait = f"@{at!r}" if at is not None else "" if delay is None else repr(delay)
        arguments += (number, job_id, wait, token, pack_data(data), created_at, description)
        if signed:
            arguments.append(sign(base_queue(kind.lane), job_id, data))
    head: list[Any] = ["1" if signed else "", len(numbers)]
    for kind in numbers:
        fields = chain.from_iterable(kind.fields.items())
        head += (kind.lane, "1" if kind.unique else "", 2 * len(kind.fields), *fields)
    return head + arguments


class _LazyConnection:
    def __getattr__(self, name: str) -> Any:
        return getattr(get_connection(), name)


def later() -> redis.Redis:
    """The connection of jobs that are not in Redis yet; it is opened at its first use."""
    return cast("redis.Redis", _LazyConnection())
