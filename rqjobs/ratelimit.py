"""Limits per second that all workers share through Redis: for the pace of somebody else's API.

A plain token bucket of ten a second lets up to twenty calls through within one second (the full bucket, and what
flows in meanwhile). Here each call books the next moment at which no window holds more than the limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, NamedTuple

import redis

from rqjobs.keys import PREFIX
from rqjobs.scripts import load_script

_MICRO = 1_000_000
_PRIORITIES = {"high": 1, "normal": 2, "low": 3}


class Booking(NamedTuple):
    """What :meth:`RateLimit.take` answers."""

    granted: bool
    """Whether the call may be made after ``wait``. If not, nothing was booked."""
    wait: float
    """Seconds until the moment of the call, or until the next try makes sense."""
    pressed: int
    """How often the brake was pressed since the last success: tell it of the next one by :meth:`Brake.release`."""


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

    def take(self, connection: redis.Redis, *, patience: float) -> Booking:
        """Books the next free moment if it is at most ``patience`` seconds away. The caller sleeps until then."""
        keys, args = [self._key("log"), self.brake.key], [self.limit, _micro(self.window), int(patience * _MICRO)]
        granted, wait, pressed = load_script("rate_take")(keys, args, client=connection)
        return Booking(bool(granted), wait / _MICRO, pressed)

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
        keys = [self._key("log"), self.brake.key, self._key("line"), self._key("ends")]
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
