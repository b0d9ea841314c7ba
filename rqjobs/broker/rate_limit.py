"""Limits per second that all workers share through Redis: for the pace of somebody else's API.

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
    """What :meth:`RateLimit.place` answers."""

    granted: bool
    """Whether the call may be made now."""
    wait: float
    """Seconds until the next try makes sense, if not."""
    pressed: int
    """How often the brake was pressed since the last success: tell it of the next one by :meth:`Brake.release`."""
    call: str
    """The id of the call."""


@dataclass(frozen=True, slots=True)
class Brake:
    """One wait for everybody after the other side said "too fast", or nothing at all.

    The first wait is one second; each that follows without a success between is twice as long, at most a minute.
    """

    name: str
    """Whose: no secret, it becomes part of a key in Redis."""
    first: timedelta = timedelta(seconds=1)
    longest: timedelta = timedelta(seconds=60)

    @property
    def key(self) -> str:
        """The hash in Redis."""
        return f"{PREFIX}:rate:{self.name}:brake"

    def press(self, connection: redis.Redis, asked: timedelta = timedelta()) -> float:
        """Holds everybody back; ``asked`` is what the other side asked for. Answers the wait in seconds."""
        waits = [_micro(wait) for wait in (self.first, self.longest, asked)]
        return float(load_script("rate_brake")([self.key], waits, client=connection)) / _MICRO

    def release(self, connection: redis.Redis) -> None:
        """A call has succeeded: the next press starts from the first wait again."""
        connection.delete(self.key)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most ``limit`` calls in any ``window``, by all workers together."""

    name: str
    """Of what: no secret, it becomes part of keys in Redis."""
    limit: int
    window: timedelta
    brake: Brake
    longest: timedelta = timedelta(seconds=30)
    """How long a call lasts at most: so long is the place taken of a worker that died."""

    @contextmanager
    def place(self, connection: redis.Redis, *, patience: float) -> Iterator[Place]:
        """Sleeps until a call may be made, if that is within ``patience`` seconds; the body makes the call.

        If it is not ``granted``, nothing is taken, and the body says so to whoever waits.
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
        keys = [self._key("places"), self.brake.key]
        granted, wait, pressed = load_script("rate_take")(keys, args, client=connection)
        return Place(bool(granted), wait / _MICRO, pressed, call)

    def done(self, connection: redis.Redis, call: str) -> None:
        """The call has its answer, or is given up: its place is free one window from now."""
        args: list[int | str] = [_micro(self.window), _micro(self.longest), call]
        load_script("rate_done")([self._key("places"), self._key("ends")], args, client=connection)

    def line(
        self,
        connection: redis.Redis,
        units: Sequence[tuple[str, int, Literal["high", "normal", "low"]]],
        *,
        slack: float = 0.3,
    ) -> list[float]:
        """When each unit of work may start: seconds to wait, 0 for now. Ask again after the wait.

        Units stand in line in the order of asking, the more urgent before the less, each for as long as its calls
        take. So nobody waits inside a worker's slot, and a unit that starts gets its calls.

        Args:
            connection: the shared Redis.
            units: a name that is the same when asked again, how many calls it will make, its priority.
            slack: waits up to this many seconds are not worth holding a unit back.
        """
        keys = [self._key("places"), self.brake.key, self._key("line"), self._key("ends")]
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
