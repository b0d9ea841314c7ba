"""How far this process' clock is from Redis' clock, which everything is counted by that workers and pages compare."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import redis

MOST = 2.0
"""Seconds of difference that change nothing: what machines that follow NTP stay below."""

_EVERY = 60.0
"""Seconds between two looks at Redis' clock, as clocks are set while processes run."""

_lock = threading.Lock()
_seconds = 0.0
_look_at = 0.0  # by the monotonic clock


def skew(client: redis.Redis) -> float:
    """The seconds that Redis' clock is ahead of this process' clock; 0 if it is less than :data:`MOST` either way.

    Reads Redis' clock once a minute at most. While Redis does not answer, the last result holds.
    """
    global _seconds, _look_at  # noqa: PLW0603
    if time.monotonic() >= _look_at and _lock.acquire(blocking=False):
        try:
            with contextlib.suppress(redis.exceptions.RedisError):
                before = time.time()
                answer: Any = client.time()
                theirs = answer[0] + answer[1] / 1_000_000
                if time.time() - before < MOST:  # a slower answer is too imprecise
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
