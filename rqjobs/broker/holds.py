"""Unavailable dependencies: which queues are held for them, and functions to report one outside a worker.

A processor that raises :class:`rqjobs.errors.DependencyUnavailable` holds its queue. The state is in one hash in Redis
(rqjobs/broker/lua/holds.lua), shared by all workers, with times by Redis' clock.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Literal

import redis

from rqjobs.broker import keys
from rqjobs.broker.clock_skew import skew
from rqjobs.broker.connection import client_of
from rqjobs.broker.rq_schema import run_script
from rqjobs.config.durations import spell
from rqjobs.config.logs import event
from rqjobs.errors import DependencyUnavailable


@dataclass(frozen=True, kw_only=True)
class Away:
    """One unavailable dependency, and the queue that is held for it."""

    queue: str
    """The queue that is held."""
    dependency: str
    """The name of the dependency, such as ``database``."""
    scope: str
    """The part of the queue that is held; "" is the whole queue."""
    reason: str
    """The error of the last trial."""
    since: datetime
    """The time of the first failure."""
    next_trial: datetime
    """The time of the next trial; in the past if a trial is running, or the queue has no job for it."""
    trials: int
    """The number of trials."""
    trying: bool
    """Whether a trial is running."""
    jobs: frozenset[str] = frozenset()
    """The ids of the jobs that run as trials."""

    @property
    def error(self) -> DependencyUnavailable:
        """The error that a job that needs the dependency would raise."""
        return DependencyUnavailable(self.dependency, self.reason, scope=self.scope)

    def tries(self, job_id: str) -> bool:
        """Returns whether the job is a trial, which must run."""
        return job_id in self.jobs

    @property
    def due(self) -> bool:
        """Whether a trial may start now."""
        return not self.trying and self.next_trial <= datetime.now(UTC)

    @cached_property
    def text(self) -> str:
        """One line for pages and logs: the dependency, since when and why it is unavailable, and the next trial."""
        now = datetime.now(UTC)
        wait = self.next_trial - now
        part = f" for {self.scope}" if self.scope else ""
        trial = "a trial runs" if self.trying else f"next trial in {spell(max(wait, timedelta(seconds=1)))}"
        return (
            f"waits for {self.dependency}{part}, away since {self.since:%H:%M:%S} UTC "
            f"({spell(max(now - self.since, timedelta()))}): {self.reason}; {trial}, no attempt is counted"
        )


def dependencies_away(connection: redis.Redis | None = None) -> list[Away]:
    """Returns all unavailable dependencies, the longest unavailable first; one round trip."""
    client = client_of(connection)
    answer: Any = client.hgetall(keys.HOLDS)
    return read_holds(answer, skew(client)) if answer else []


def read_holds(answer: Any, ahead: float) -> list[Away]:
    """Returns the dependencies in the hash of holds, the longest unavailable first.

    Args:
        answer: the hash as Redis returns it.
        ahead: the seconds by which Redis' clock is ahead. The returned times are by this process's clock.
    """
    found = []
    for value in answer.values():
        with contextlib.suppress(ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError):
            found.append(_read_hold(json.loads(value), ahead))  # what is no hold holds no queue (holds.lua)
    return sorted(found, key=lambda away: (away.since, away.queue, away.scope))


def _read_hold(hold: Any, ahead: float) -> Away:
    texts = (hold["queue"], hold["dependency"], hold["scope"], hold["reason"])
    queue, dependency, scope, reason = map(str, texts)
    out: dict[str, Any] = dict(hold["out"])
    return Away(
        queue=queue,
        dependency=dependency,
        scope=scope,
        reason=reason,
        since=datetime.fromtimestamp(hold["since"] - ahead, UTC),
        next_trial=datetime.fromtimestamp(hold["next"] - ahead, UTC),
        trials=int(hold["trials"]),
        trying=any(trial["till"] - ahead > time.time() for trial in out.values()),
        jobs=frozenset(out),
    )


def held_scopes(connection: redis.Redis, queue: str) -> dict[str, Away]:
    """Returns the held parts of ``queue`` by scope, for its ``admit``; one round trip.

    An ``admit`` returns :attr:`Away.error` for a job of such a part, unless the job is the trial (:meth:`Away.tries`).
    """
    return {away.scope: away for away in dependencies_away(connection) if away.queue == queue and away.scope}


def start(connection: redis.Redis, queue: str, job_id: str) -> tuple[float, bool]:
    """Admits a job that no worker's claim has checked.

    Returns:
        The seconds to wait (0: run it), and whether it is a trial.
    """
    wait, trial, _ = _run(connection, "start", queue, job_id)
    return float(wait), bool(trial)


def end(connection: redis.Redis, queue: str, job_id: str, how: Literal["done", "quiet", "back"]) -> None:
    """Ends a trial that found no dependency unavailable: it was ``done``, failed otherwise, or was released."""
    _run(connection, "end", queue, job_id, how)


def report_away(connection: redis.Redis, queue: str, job_id: str, error: DependencyUnavailable) -> float:
    """Records that a run of the job found a dependency unavailable, and holds its queue.

    Only for a run with another outcome: a processor that raises the error need not call it.

    Returns:
        The seconds until the next trial; -1 if the dependency answers other jobs, so that the job itself has failed.
    """
    wait, *_ = _run(connection, "away", queue, job_id, error.scope, error.dependency, error.reason, "run")
    return float(wait)


def try_now(queue: str, connection: redis.Redis | None = None) -> int:
    """Makes the next trials of ``queue`` due at once; returns the number of dependencies for which it is held."""
    answer, *_ = _run(client_of(connection), "try", queue, "")
    return int(float(answer))


def _run(connection: redis.Redis, *values: str) -> Any:
    answer = run_script("hold", connection, [keys.PREFIX, *values])
    log_changes(answer[-1])
    return answer


def log_changes(values: Sequence[Any]) -> None:
    """Writes one log line for each hold that a script has started or ended."""
    texts = [word.decode(errors="replace") if isinstance(word, bytes) else str(word) for word in values]
    for start in range(0, len(texts), 7):
        what, queue, scope, dependency, reason, seconds, jobs = texts[start : start + 7]
        part = {"scope": scope} if scope else {}
        if what == "opened":
            event(logging.ERROR, "dependency away", dependency=dependency, queue=queue, **part, reason=reason)
        else:
            event(
                logging.WARNING,
                "dependency back",
                dependency=dependency,
                queue=queue,
                **part,
                seconds=round(float(seconds), 1),
                waiting=int(jobs),
            )
