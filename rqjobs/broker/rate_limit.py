"""Rate limits that all workers share through Redis, for APIs with limits per second.

A token bucket of ten per second lets up to twenty calls through in one second: the full bucket and the refill. Here a
limit of ten has ten slots, and a call holds one from before it is sent until a second after its response. So the API
never receives more than ten calls in a second, whatever their latency; the price is a rate of 10 / (1 s + latency).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

import redis

from rqjobs.broker.keys import PREFIX
from rqjobs.broker.scripts import load_script
from rqjobs.policies import PRIORITIES, Priority

_MICRO = 1_000_000


class Place(NamedTuple):
    """The result of :meth:`RateLimit.place`: whether the call may be made, or how long to wait."""

    granted: bool
    """Whether the call may be made now."""
    wait: float
    """If not: the seconds until it may be granted."""
    pressed: int
    """The number of cooldowns since the last success; above 0 the next success must call :meth:`Cooldown.release`."""
    call: str
    """The id of the call, for :meth:`RateLimit.done`."""


@dataclass(frozen=True, slots=True)
class Cooldown:
    """A pause of all workers' calls after the API returned "too many requests" or did not answer.

    The first pause is one second; each further one without a success in between is twice as long, at most a minute.
    """

    name: str
    """The name of the account or API. It becomes part of a key in Redis, so it must not be a secret."""
    first: timedelta = timedelta(seconds=1)
    longest: timedelta = timedelta(seconds=60)

    @property
    def key(self) -> str:
        """The key of the hash in Redis."""
        return f"{PREFIX}:rate:{self.name}:brake"

    def press(self, connection: redis.Redis, asked: timedelta = timedelta()) -> float:
        """Starts the pause, of at least ``asked`` (the API's Retry-After); returns its length in seconds."""
        waits = [_micro(wait) for wait in (self.first, self.longest, asked)]
        return float(load_script("rate_cooldown")([self.key], waits, client=connection)) / _MICRO

    def release(self, connection: redis.Redis) -> None:
        """Records a success: the next pause has the first length again."""
        connection.delete(self.key)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most ``limit`` calls in any ``window``, for all workers together."""

    name: str
    """The name of the limit. It becomes part of keys in Redis, so it must not be a secret."""
    limit: int
    window: timedelta
    cooldown: Cooldown
    longest: timedelta = timedelta(seconds=30)
    """The longest duration of a call. The slot of a worker that died is free after this time."""

    @contextmanager
    def place(self, connection: redis.Redis, *, patience: float) -> Iterator[Place]:
        """Waits at most ``patience`` seconds for a slot; the body of the block makes the call.

        If the place is not ``granted``, the body must not make the call.
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
        """Takes a slot for one call, if one is free now."""
        call = secrets.token_hex(8)
        args: list[int | str] = [self.limit, _micro(self.window), _micro(self.longest), call]
        keys = [self._key("places"), self.cooldown.key]
        granted, wait, pressed = load_script("rate_take")(keys, args, client=connection)
        return Place(bool(granted), wait / _MICRO, pressed, call)

    def done(self, connection: redis.Redis, call: str) -> None:
        """Ends a call, with or without a response: its slot is free one window later."""
        args: list[int | str] = [_micro(self.window), _micro(self.longest), call]
        load_script("rate_done")([self._key("places"), self._key("ends")], args, client=connection)

    def admit(
        self,
        connection: redis.Redis,
        units: Sequence[tuple[str, int, Priority]],
        *,
        slack: float = 0.3,
    ) -> list[float]:
        """Returns when each unit of work may start: seconds to wait, 0 for now. Call it again after the wait.

        Units are admitted by priority, then in the order of their first call, each for the time of its calls. So no
        unit waits inside a worker's slot, and a unit that starts can make its calls.

        Args:
            connection: the shared Redis.
            units: for each unit a name that is the same in repeated calls, its number of calls, its priority.
            slack: a unit that would wait at most this long, in seconds, starts now.
        """
        keys = [self._key("places"), self.cooldown.key, self._key("line"), self._key("ends")]
        script = load_script("rate_admit")
        with connection.pipeline(transaction=False) as pipeline:
            for unit, cost, priority in units:
                limits = [self.limit, _micro(self.window), int(slack * _MICRO)]
                script(keys, [unit, cost, PRIORITIES.index(priority) + 1, *limits], client=pipeline)
            return [wait / _MICRO for wait in pipeline.execute()]

    def _key(self, what: str) -> str:
        return f"{PREFIX}:rate:{self.name}:{what}"


def _micro(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1)
