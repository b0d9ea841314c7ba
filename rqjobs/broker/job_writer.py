"""Writes jobs to Redis. An open transaction can defer the write, and a test can capture the jobs instead."""

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
from rqjobs.broker.rq_schema import BATCH_FIELD, pack_data, run_script, timestamp
from rqjobs.broker.scripts import load_script
from rqjobs.config.logs import event
from rqjobs.errors import DuplicateJob
from rqjobs.policies import base_queue

_CHUNK = 500  # jobs per Lua call, so that a call blocks Redis for a few milliseconds at most
_LOOK = 50  # calls of one sender between two comparisons of the clocks

DESTINATION = "destination"
"""The field of a job's hash with its destination, by which reserve.lua can park it (destination.lua)."""

GROUP = "group"
"""The field of a job's hash that names its group."""

ROW_DELAY = "delay"
"""The field of an outbox row with the seconds from the row's creation until the job is due."""

ROW_AGAIN = "again"
"""The field of an outbox row with the id and the data of :attr:`Entry.again`."""


@dataclass(frozen=True, eq=False, slots=True)
class Kind:
    """The part that jobs of one queue with the same options share; it is sent to Redis once for all of them."""

    lane: str
    unique: bool
    fields: dict[str, str | int]
    """The fields that their hashes share."""


class Entry(NamedTuple):
    """One job in the form that the script writes; the RQ job that callers receive is made from it."""

    kind: Kind
    job_id: str
    delay: float | None
    """Seconds from the write (by Redis' clock) until it is due; None for at once."""
    data: bytes
    created_at: str
    description: str
    token: str = ""
    """The id of the outbox row: an entry with the same token is written only once."""
    at: float | None = None
    """When it is due, in Unix seconds; replaces ``delay``."""
    destination: str = ""
    """The time of enqueueing in microseconds, and the :meth:`rqjobs.jobs.JobModel.destination`; "" for none."""

    again: Entry | None = None
    """Of a debounced job: the entry to write in its place while the job with its id runs."""

    @property
    def is_delayed(self) -> bool:
        """Whether the job has to wait for its time before it can run."""
        return self.delay is not None or self.at is not None


Defer = Callable[[Callable[[], None]], bool]
"""Defers a function until the current transaction has committed; returns False if there is no transaction."""


class Capture(Protocol):
    """The object to which a test redirects jobs instead of Redis (rqjobs.testing)."""

    def add(self, entries: Sequence[Entry]) -> None:
        """Receives jobs that would have been written to Redis, or to an outbox."""

    def wait(self, entries: Sequence[Entry]) -> None:
        """Receives jobs that wait for a commit; after it they are added."""

    def follow(self, then: Sequence[Entry], on_dead: Sequence[Entry]) -> None:
        """Receives the jobs that are enqueued when those of a batch are done, or when one is dead."""

    def has(self, job_id: str) -> bool:
        """Returns whether a captured job has this id."""


_defer: Defer | None = None
_capture: Capture | None = None


def defer_with(defer: Defer | None) -> None:
    """Sets the function by which an integration defers jobs until the current transaction has committed."""
    global _defer  # noqa: PLW0603
    _defer = defer


def capture_with(capture: Capture | None) -> None:
    """Sets the object that captures jobs in a test; None ends capturing."""
    global _capture  # noqa: PLW0603
    _capture = capture


def captured(entries: Sequence[Entry]) -> bool:
    """Passes the jobs to the test that captures them; returns False if there is none."""
    if _capture is None:
        return False
    _capture.add(entries)
    return True


def capture_batch(then: Sequence[Entry], on_dead: Sequence[Entry]) -> None:
    """Passes the jobs that wait for a batch to the test that captures them."""
    if _capture is not None:
        _capture.follow(then, on_dead)


def wait_for_commit(entries: Sequence[Entry]) -> None:
    """Passes jobs that wait for a commit to the test that captures them, if there is one."""
    if _capture is not None:
        _capture.wait(entries)


def is_capturing() -> bool:
    """Returns whether a test captures jobs."""
    return _capture is not None


def is_captured(job_id: str) -> bool:
    """Returns whether a test has captured the job with this id."""
    return _capture is not None and _capture.has(job_id)


def after_commit(write: Callable[[], None]) -> bool:
    """Defers ``write`` until the current transaction has committed; returns False if there is none."""
    return _defer is not None and _defer(write)


def write(entries: Sequence[Entry], connection: redis.Redis | None, *, on_commit: bool) -> redis.Redis:
    """Writes the jobs now or, with ``on_commit`` and inside a tracked transaction, after its commit.

    Returns:
        The connection by which the jobs can be read.

    Raises:
        DuplicateJob: jobs with these ids exist; after a commit this is only logged.
        RedisUnavailable: Redis does not answer.
    """
    if on_commit and after_commit(lambda: _write_after_commit(entries, connection)):
        wait_for_commit(entries)
        return connection or later()
    if refused := write_now(entries, connection):
        raise DuplicateJob(refused)
    return connection or (later() if _capture is not None else get_connection())


def _write_after_commit(entries: Sequence[Entry], connection: redis.Redis | None) -> None:
    # The transaction is committed, so a duplicate is only logged: it must not fail the request.
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
    if sender.sound:  # a sender is not used again after an error
        _idle.append(sender)
    again = [entry.again for entry in entries if entry.again is not None and entry.job_id in refused]
    if again:
        replaced = {entry.job_id for entry in entries if entry.again is not None}
        return [job_id for job_id in refused if job_id not in replaced] + write_now(again, connection)
    return refused


class _Sender:
    """Identifies one caller at a time; with its receipt in Redis (enqueue.lua) a call that is sent twice is recognised.

    Receipts are kept per sender, not per job, so they take little memory: there are as many as concurrent calls.
    """

    __slots__ = ("behind", "name", "number", "sound")

    def __init__(self) -> None:
        self.name = os.urandom(8).hex()
        self.number = 0
        """The number of its current call."""
        self.sound = True
        """Whether none of its calls can still be in flight; after an error its name is not used again."""
        self.behind = 0.0
        """The seconds by which Redis' clock is ahead."""


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
    """Writes a single job that is due at once, by the cheapest script; returns False for any other job."""
    kind, job_id, _delay, data, created_at, description, token, _at, destination, _again = entry
    if entry.is_delayed or token or BATCH_FIELD in kind.fields or GROUP in kind.fields:
        return False
    own: tuple[str | bytes, ...] = ("data", pack_data(data), "created_at", created_at, "description", description)
    if signs_jobs():
        own += (FIELD, sign(base_queue(kind.lane), job_id, data))
    if destination:
        own += (DESTINATION, destination)
    arguments = (kind.lane, job_id, sender.name, sender.number, *own, *chain.from_iterable(kind.fields.items()))
    if sender.number % _LOOK == 1:
        sender.behind = skew(get_connection())
    if sender.behind:
        arguments += ("enqueued_at", redis_timestamp(sender.behind))
    try:
        return bool(ask("EVALSHA", load_script("enqueue_one").sha, 0, RQ_KEY_PREFIX, *arguments))
    except redis.exceptions.RedisError:  # sent again below: if this call did arrive, the script recognises it
        sender.sound = False
        return bool(run_script("enqueue_one", get_connection(), arguments))


def _dated(entries: Sequence[Entry], behind: float) -> list[Entry]:
    """Adds a time of enqueueing by Redis' clock to the entries, because this process's clock is wrong."""
    fields: dict[str, str | int] = {"enqueued_at": redis_timestamp(behind)}
    kinds = {entry.kind: replace(entry.kind, fields=entry.kind.fields | fields) for entry in entries}
    return [entry._replace(kind=kinds[entry.kind]) if not entry.is_delayed else entry for entry in entries]


def redis_timestamp(behind: float) -> str:
    """Returns the time by Redis' clock, as RQ writes it; ``behind`` is :func:`rqjobs.broker.clock_skew.skew`."""
    return timestamp(time.time_ns() // 1000 + round(behind * 1_000_000))


def _arguments(entries: Sequence[Entry]) -> list[Any]:
    numbers: dict[Kind, int] = {}
    jobs: list[Any] = []
    signed, has_destination = signs_jobs(), any(entry.destination for entry in entries)
    for kind, job_id, delay, data, created_at, description, token, at, destination, _again in entries:
        number = numbers.setdefault(kind, len(numbers) + 1)
        wait = f"@{at!r}" if at is not None else "" if delay is None else repr(delay)
        jobs += (number, job_id, wait, token, pack_data(data), created_at, description)
        if signed:
            jobs.append(sign(base_queue(kind.lane), job_id, data))
        if has_destination:
            jobs.append(destination)
    arguments: list[Any] = [len(numbers)]
    for kind in numbers:
        fields = chain.from_iterable(kind.fields.items())
        group = kind.fields.get(GROUP, "")
        arguments += (kind.lane, "1" if kind.unique else "", group, 2 * len(kind.fields), *fields)
    names = ["data", "created_at", "description", *[FIELD] * signed, *[DESTINATION] * has_destination]
    return [*arguments, len(names), *names, *jobs]


class _LazyConnection:
    def __getattr__(self, name: str) -> Any:
        return getattr(get_connection(), name)


def later() -> redis.Redis:
    """Returns the connection of jobs that are not in Redis yet; it is opened at its first use."""
    return cast("redis.Redis", _LazyConnection())
