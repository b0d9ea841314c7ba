"""The one place that writes jobs to Redis, and the places that may take them instead: a transaction, a test."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import redis
from rq.utils import as_text

from rqjobs.connection import get_connection
from rqjobs.errors import DuplicateJob
from rqjobs.layout import run_script
from rqjobs.logs import event

_CHUNK = 500  # jobs a Lua call: a call blocks Redis for some milliseconds at most


class Entry(NamedTuple):
    """One job as the script wants it, and what the caller gets back is made of."""

    job_id: str
    lane: str
    due: float | None
    unique: bool
    fields: dict[str, Any]
    token: str = ""
    """The outbox row's id: an entry of the same token is written once, whoever tries again."""


Defer = Callable[[Callable[[], None]], bool]
"""Given what is to be done after the commit: whether there is a transaction that it now waits for."""

_defer: Defer | None = None
_capture: Callable[[Sequence[Entry]], None] | None = None


def defer_with(defer: Defer | None) -> None:
    """Lets an integration hold jobs back until the transaction around them has committed."""
    global _defer  # noqa: PLW0603
    _defer = defer


def capture_with(capture: Callable[[Sequence[Entry]], None] | None) -> None:
    """Lets a test have the jobs instead of Redis."""
    global _capture  # noqa: PLW0603
    _capture = capture


def write(entries: Sequence[Entry], connection: redis.Redis | None, *, on_commit: bool) -> redis.Redis:
    """Writes the jobs now or, with ``on_commit`` and inside a transaction that is known of, after its commit.

    Returns:
        The connection to read them by.

    Raises:
        DuplicateJob: naming the ids that were there already; after a commit this is only logged.
        RedisUnavailable: Redis does not answer.
    """
    if on_commit and _defer is not None and _defer(lambda: _write_after_commit(entries, connection)):
        return connection or later()
    if refused := write_now(entries, connection):
        raise DuplicateJob(refused)
    return connection or (later() if _capture is not None else get_connection())


def _write_after_commit(entries: Sequence[Entry], connection: redis.Redis | None) -> None:
    # The transaction stands: a job that is there already is what its id is for, and no reason to fail a request.
    if refused := write_now(entries, connection):
        event(logging.WARNING, "already enqueued", ids=",".join(refused))


def write_now(entries: Sequence[Entry], connection: redis.Redis | None) -> list[str]:
    """Writes the jobs in one round trip; answers the ids that were there already."""
    if _capture is not None:
        _capture(entries)
        return []
    client = connection or get_connection()
    now = time.time()
    calls = [[now, *_words(entries[start : start + _CHUNK])] for start in range(0, len(entries), _CHUNK)]
    if len(calls) == 1:
        answers = [run_script("enqueue", client, calls[0])]
    else:
        with client.pipeline(transaction=False) as pipeline:
            for words in calls:
                run_script("enqueue", pipeline, words)
            answers = pipeline.execute()
    return [as_text(job_id) for answer in answers for job_id in answer]


_OWN = ("data", "description", "created_at", "enqueued_at")
"""What differs from job to job; the other fields are sent once for all jobs that have them in common."""


def _words(entries: Sequence[Entry]) -> list[Any]:
    shared: dict[tuple[Any, ...], int] = {}
    words: list[Any] = []
    for entry in entries:
        own = {name: value for name in _OWN if (value := entry.fields.get(name)) is not None}
        common = tuple(item for item in entry.fields.items() if item[0] not in own)
        number = shared.setdefault(common, len(shared) + 1)
        due = "" if entry.due is None else repr(entry.due)
        words += (entry.job_id, entry.lane, due, "1" if entry.unique else "", entry.token, number)
        words.append("+".join(own))
        words += own.values()
    head: list[Any] = [len(shared)]
    for common in shared:
        head.append(2 * len(common))
        for item in common:
            head += item
    return head + words


class _LazyConnection:
    def __getattr__(self, name: str) -> Any:
        return getattr(get_connection(), name)


def later() -> redis.Redis:
    """The connection of jobs that are not in Redis yet: made when somebody asks something of it."""
    return cast("redis.Redis", _LazyConnection())
