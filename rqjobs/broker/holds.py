"""Dependencies that are away: which queues wait for them, since when, and functions to report one outside a worker.

A processor that raises :class:`rqjobs.errors.DependencyUnavailable` holds its queue. The state is in one hash in Redis
(rqjobs/broker/lua/holds.lua), shared by all workers, by Redis' clock.
"""

from __future__ import annotations

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
    """One dependency that is away, and the queue that waits for it."""

    queue: str
    """The queue that waits."""
    dependency: str
    """What is away, such as ``database``."""
    scope: str
    """The part of the queue that waits; "" is the whole queue."""
    reason: str
    """The error of the last trial."""
    since: datetime
    """When it was first found away."""
    next_trial: datetime
    """When the next trial is due; in the past if one is under way, or no job is there to try."""
    trials: int
    """How many trials there were."""
    trying: bool
    """Whether a trial is under way."""
    jobs: frozenset[str] = frozenset()
    """The ids of the jobs that try it."""

    @property
    def error(self) -> DependencyUnavailable:
        """What a job that needs it would raise."""
        return DependencyUnavailable(self.dependency, self.reason, scope=self.scope)

    def tries(self, job_id: str) -> bool:
        """Whether the job is a trial, and so must run."""
        return job_id in self.jobs

    @property
    def due(self) -> bool:
        """Whether a trial may start now."""
        return not self.trying and self.next_trial <= datetime.now(UTC)

    @cached_property
    def text(self) -> str:
        """One line for people: what is away, since when, why, when it is tried again."""
        now = datetime.now(UTC)
        wait = self.next_trial - now
        part = f" for {self.scope}" if self.scope else ""
        trial = "a trial runs" if self.trying else f"next trial in {spell(max(wait, timedelta(seconds=1)))}"
        return (
            f"waits for {self.dependency}{part}, away since {self.since:%H:%M:%S} UTC "
            f"({spell(max(now - self.since, timedelta()))}): {self.reason}; {trial}, no attempt is counted"
        )


def dependencies_away(connection: redis.Redis | None = None) -> list[Away]:
    """Every dependency that is away, the longest first; one round trip."""
    client = client_of(connection)
    answer: Any = client.hgetall(keys.HOLDS)
    return read_holds(answer, skew(client)) if answer else []


def read_holds(answer: Any, ahead: float) -> list[Away]:
    """The dependencies in the hash of holds as Redis returns it, the longest away first.

    Their times are by this process' clock; Redis' clock is ``ahead`` seconds ahead of it.
    """
    found = []
    for value in answer.values():
        hold = json.loads(value)
        found.append(
            Away(
                queue=hold["queue"],
                dependency=hold["dependency"],
                scope=hold["scope"],
                reason=hold["reason"],
                since=datetime.fromtimestamp(hold["since"] - ahead, UTC),
                next_trial=datetime.fromtimestamp(hold["next"] - ahead, UTC),
                trials=int(hold["trials"]),
                trying=any(trial["till"] - ahead > time.time() for trial in hold["out"].values()),
                jobs=frozenset(hold["out"]),
            )
        )
    return sorted(found, key=lambda away: (away.since, away.queue, away.scope))


def held_scopes(connection: redis.Redis, queue: str) -> dict[str, Away]:
    """The parts of ``queue`` that wait for a dependency, by their scope, for its ``admit``; one round trip.

    An ``admit`` returns :attr:`Away.error` for a job of such a part, unless the job is the trial (:meth:`Away.tries`).
    """
    return {away.scope: away for away in dependencies_away(connection) if away.queue == queue and away.scope}


def start(connection: redis.Redis, queue: str, job_id: str) -> tuple[float, bool]:
    """Whether a job may run that no worker's claim has checked: seconds to wait, and whether it is a trial."""
    wait, trial, _ = _run(connection, "start", queue, job_id)
    return float(wait), bool(trial)


def end(connection: redis.Redis, queue: str, job_id: str, how: Literal["done", "quiet", "back"]) -> None:
    """A trial has ended without finding its dependency away: it was ``done``, failed otherwise, or was released."""
    _run(connection, "end", queue, job_id, how)


def report_away(connection: redis.Redis, queue: str, job_id: str, error: DependencyUnavailable) -> float:
    """A run of the job has found a dependency away: its queue is held. Returns the seconds until the next trial, or -1
    if the dependency answers other jobs, so that it is the job's own failure.

    For a run whose own outcome is another one; a processor that raises the error need not call it.
    """  # noqa: D205
    wait, *_ = _run(connection, "away", queue, job_id, error.scope, error.dependency, error.reason, "run")
    return float(wait)


def try_now(queue: str, connection: redis.Redis | None = None) -> int:
    """Makes the next trials of ``queue`` due at once; returns the number of dependencies that it waits for."""
    answer, *_ = _run(client_of(connection), "try", queue, "")
    return int(float(answer))


def _run(connection: redis.Redis, *values: str) -> Any:
    answer = run_script("hold", connection, [keys.PREFIX, *values])
    log_changes(answer[-1])
    return answer


def log_changes(values: Sequence[Any]) -> None:
    """Logs the holds that a script has opened or closed: a line each."""
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
