"""Limits per second that all workers share through Redis: for the rate limits of other people's APIs.

A plain token bucket of ten a second lets up to twenty calls through within one second (the full bucket, and what
flows in meanwhile), and more when calls are not equally long under way. Here there are ten places: a call holds one
from before it is sent until a second after its answer. So however long each was under way, the other side never sees
more than ten within a second; the price is a rate of 10 / (1 s + what a call takes).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, NamedTuple

import redis

from rqjobs.broker.keys import PREFIX
from rqjobs.broker.scripts import load_script

_MICRO = 1_000_000
_PRIORITIES = {"high": 1, "normal": 2, "low": 3}


class Place(NamedTuple):
    """The result of :meth:`RateLimit.place`: whether one call may be made now."""

    granted: bool
    """Whether the call may be made now."""
    wait: float
    """Seconds until the next try makes sense, if not."""
    pressed: int
    """How often the cooldown began since the last success; if above 0, call :meth:`Cooldown.release` after the next."""
    call: str
    """The id of the call."""


@dataclass(frozen=True, slots=True)
class Cooldown:
    """One wait for the calls of all workers, after the API answered "too many requests" or did not answer.

    The first wait is one second; each that follows without a success between is twice as long, at most a minute.
    """

    name: str
    """The name of the account or API. It becomes part of a key in Redis, so it must not be a secret."""
    first: timedelta = timedelta(seconds=1)
    longest: timedelta = timedelta(seconds=60)

    @property
    def key(self) -> str:
        """The hash in Redis."""
        return f"{PREFIX}:rate:{self.name}:brake"

    def press(self, connection: redis.Redis, asked: timedelta = timedelta()) -> float:
        """Starts the wait, at least ``asked``, which is the API's Retry-After. Returns the wait in seconds."""
        waits = [_micro(wait) for wait in (self.first, self.longest, asked)]
        return float(load_script("rate_brake")([self.key], waits, client=connection)) / _MICRO

    def release(self, connection: redis.Redis) -> None:
        """Records a success: the next wait is the first one again."""
        connection.delete(self.key)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most ``limit`` calls in any ``window``, by all workers together."""

    name: str
    """The name of what is limited. It becomes part of keys in Redis, so it must not be a secret."""
    limit: int
    window: timedelta
    cooldown: Cooldown
    longest: timedelta = timedelta(seconds=30)
    """The longest time of a call. The place of a worker that died is free after it."""

    @contextmanager
    def place(self, connection: redis.Redis, *, patience: float) -> Iterator[Place]:
        """Sleeps until a call may be made, if that is within ``patience`` seconds; the body makes the call.

        If it is not ``granted``, no place was taken, and the body must not make the call.
        """
        deadline = time.monotonic() + patience
        while not (place := self.take(connection)).granted and time.monotonic() + place.wait <= deadline:
            time.sleep(min(max(place.wait, 0.005), 0.1))
        try:
            yield place
        finally:
            if place.granted:
                self.done(connection, place.call)

    def take(self, connection: redis.Redis) -> Place:
        """Takes a place for one call, if one is free right now."""
        call = secrets.token_hex(8)
        args: list[int | str] = [self.limit, _micro(self.window), _micro(self.longest), call]
        keys = [self._key("places"), self.cooldown.key]
        granted, wait, pressed = load_script("rate_take")(keys, args, client=connection)
        return Place(bool(granted), wait / _MICRO, pressed, call)

    def done(self, connection: redis.Redis, call: str) -> None:
        """Ends a call, answered or not: its place is free one window from now."""
        args: list[int | str] = [_micro(self.window), _micro(self.longest), call]
        load_script("rate_done")([self._key("places"), self._key("ends")], args, client=connection)

    def admit(
        self,
        connection: redis.Redis,
        units: Sequence[tuple[str, int, Literal["high", "normal", "low"]]],
        *,
        slack: float = 0.3,
    ) -> list[float]:
        """When each unit of work may start: seconds to wait, 0 for now. Call this again after the wait.

        Units get their turns by priority, then in the order of their first call, each for as long as its calls take.
        So no unit waits inside a worker's slot, and a unit that starts gets its calls.

        Args:
            connection: the shared Redis.
            units: a name that stays the same in repeated calls, how many calls it will make, its priority.
            slack: a unit whose wait is at most this, in seconds, starts now.
        """
        keys = [self._key("places"), self.cooldown.key, self._key("line"), self._key("ends")]
        script = load_script("rate_line")
        with connection.pipeline(transaction=False) as pipeline:
            for unit, cost, priority in units:
                limits = [self.limit, _micro(self.window), int(slack * _MICRO)]
                script(keys, [unit, cost, _PRIORITIES[priority], *limits], client=pipeline)
            return [wait / _MICRO for wait in pipeline.execute()]

    def _key(self, what: str) -> str:
        return f"{PREFIX}:rate:{self.name}:{what}"


def _micro(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1)
