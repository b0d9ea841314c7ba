"""The difference between this process's clock and Redis' clock, which all workers and pages use for comparisons."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import redis

MOST = 2.0
"""Seconds of difference that are ignored: machines with NTP stay below this."""

_EVERY = 60.0
"""Seconds between two readings of Redis' clock: clocks may be changed while a process runs."""

_lock = threading.Lock()
_seconds = 0.0
_look_at = 0.0  # the time of the next reading, by the monotonic clock


def skew(client: redis.Redis) -> float:
    """Returns the seconds by which Redis' clock is ahead; 0 if the difference is less than :data:`MOST`.

    Reads Redis' clock at most once a minute. While Redis does not answer, it returns the last result.
    """
    global _seconds, _look_at  # noqa: PLW0603
    if time.monotonic() >= _look_at and _lock.acquire(blocking=False):
        try:
            with contextlib.suppress(redis.exceptions.RedisError):
                before = time.time()
                answer: Any = client.time()
                theirs = answer[0] + answer[1] / 1_000_000
                if time.time() - before < MOST:  # a slower response is too imprecise
                    found = theirs - before
                    _seconds = found if abs(found) > MOST else 0.0
                    _look_at = time.monotonic() + _EVERY
        finally:
            _lock.release()
    return _seconds


def forget() -> None:
    """Makes the next :func:`skew` read Redis' clock again."""
    global _seconds, _look_at  # noqa: PLW0603
    _seconds = _look_at = 0.0
