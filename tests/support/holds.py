"""A queue without a worker: what Redis hands out, and what it makes of outcomes, while a dependency is away."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import redis as redis_py

from rqjobs.broker import keys
from rqjobs.broker.rq_schema import key, run_script, timestamp

LANES = ("probe:high", "probe", "probe:low")


@dataclass(frozen=True)
class Claimed:
    """A job that was handed out."""

    job_id: str
    execution: str
    lane: int
    trial: bool

    @property
    def member(self) -> str:
        return f"{self.job_id}:{self.execution}"


class Queue:
    """The queue ``probe`` as a worker sees it."""

    def __init__(self, redis: redis_py.Redis, worker: str = "w") -> None:
        self._redis, self._worker = redis, worker
        self.wait = -1.0
        """Seconds until the next trial, by the last answer; -1 if nothing is held."""

    def reserve(self, count: int) -> list[Claimed]:
        words = [
            keys.PREFIX,
            self._worker,
            30,
            timestamp(),
            os.urandom(12).hex(),
            "1",
            3,
            1,
            "probe",
            count,
            *[""] * 7,
        ]
        for lane in LANES:
            words += (lane, 1)
        _rate, _parked, _full, wait, *jobs = run_script("reserve", self._redis, words)
        self.wait = float(wait)
        return [Claimed(job[0].decode(), job[1].decode(), job[2], len(job) > 12) for job in jobs]

    def finish(self, how: str, *jobs: Claimed, scope: str = "", dependency: str = "database") -> list[str]:
        """Writes the outcome of all; which holds were opened and closed. A job that was charged raises."""
        words: list[object] = [keys.PREFIX, self._worker, timestamp(), 100_000, 500, len(LANES)]
        for lane in LANES:
            words += (lane, "probe", "")
        fields: Sequence[object] = ("", 60, "", "", "")
        if how == "unavailable":
            fields = (scope, dependency, "it does not answer", "run", "")
        elif how == "retry":
            fields = ("", 0, 1, 1, "")
        elif how == "held":
            fields = (5, "", "", "", "")
        for job in jobs:
            words += (how, job.job_id, job.execution, job.lane, 1.0, 2.0, timestamp(), timestamp(), *fields)
        lost, _parents, refused, charged, changes, _freed = run_script("finish", self._redis, words)
        assert (lost, refused) == ([], []), (lost, refused)
        if charged:
            raise ChargedError([jobs[number].job_id for number in charged])
        return [word.decode() for word in changes[::7]]

    def kill(self, *jobs: Claimed) -> None:
        """Its worker has died, and the rescuer has put its jobs back."""
        for job in jobs:
            self._redis.zrem(key("wip", LANES[job.lane - 1]), job.member)
            self._redis.lpush(key("queue", LANES[job.lane - 1]), job.job_id)

    def due(self, now: float) -> int:
        """Moves what is due, as the scheduler does."""
        _wait, moved, _others = run_script("schedule", self._redis, [timestamp(), 1000, *LANES])
        return int(moved)


class ChargedError(Exception):
    """It blamed a dependency that others find answering."""
