"""The waits before retries: exponential, fixed, or a schedule of waits."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from rqjobs.config.durations import format_duration, parse_duration

MAX_ATTEMPTS = 100
"""The most runs a job may have; a schedule with more is a mistake."""

_BACKOFF = re.compile(r"(standard|(exponential|fixed|schedule):([^:]+))(?::jitter=(\d+(?:\.\d+)?))?")


@dataclass(frozen=True, slots=True)
class Backoff:
    """The wait before each retry: ``base * factor ** n``, at most ``maximum``, plus up to ``jitter`` of it.

    With ``listed`` waits these are used one after the other, and the last one for all further retries.
    """

    base: timedelta
    factor: float = 1.0
    maximum: timedelta = timedelta(days=1)
    jitter: float = 0.0
    listed: tuple[timedelta, ...] = ()

    @property
    def attempts(self) -> int | None:
        """The number of runs that a schedule has waits for; None if the backoff does not determine it."""
        return len(self.listed) + 1 if self.listed else None

    def waits(self, attempts: int, *, rand: Callable[[], float] = random.random) -> list[float]:
        """Returns the waits in seconds between ``attempts`` runs: one fewer than the runs.

        RQ aligns a list of intervals at its end, so its length must be the number of retries.
        """
        waits = []
        for retry in range(attempts - 1):
            if self.listed:
                wait = self.listed[min(retry, len(self.listed) - 1)].total_seconds()
            else:
                wait = min(self.base.total_seconds() * self.factor**retry, self.maximum.total_seconds())
            wait += wait * self.jitter * rand() if self.jitter else 0.0
            waits.append(round(wait, 3))
        return waits

    def __str__(self) -> str:
        if self.listed:
            return "schedule:" + ",".join(format_duration(wait) for wait in self.listed)
        kind = "fixed" if self.factor == 1.0 else "exponential"
        return f"{kind}:{format_duration(self.base)}"


def choose_attempts(given: int | None, backoff: Backoff | None, default: int) -> int:
    """Returns ``given`` if it is not None; otherwise the number of runs of a schedule, or ``default``."""
    return given if given is not None else (backoff and backoff.attempts) or default


def exponential(
    base: timedelta | str = timedelta(seconds=2),
    *,
    factor: float = 2.0,
    maximum: timedelta | str = timedelta(hours=24),
    jitter: float = 0.0,
) -> Backoff:
    """Returns a backoff with waits of ``base``, ``base * factor``, ``base * factor**2`` ...: by default 2 s, 4 s, 8 s.

    Args:
        base: the first wait.
        factor: the ratio of each wait to the one before, at least 1.
        maximum: the longest wait (24 hours), before the jitter.
        jitter: a share from 0 to 1 of each wait that is added at random, so that jobs that failed together are not all
            retried at the same time. 0 by default.

    Raises:
        ValueError: a value is out of its range.
    """
    if factor < 1 or not 0 <= jitter <= 1:
        raise ValueError("exponential(): factor is at least 1, jitter from 0 to 1")
    return Backoff(parse_duration(base), factor, parse_duration(maximum), jitter)


def fixed(wait: timedelta | str, *, jitter: float = 0.0) -> Backoff:
    """Returns a backoff with the same ``wait`` before every retry, plus up to ``jitter`` (0 to 1) of it at random.

    Raises:
        ValueError: a value is out of its range.
    """
    if not 0 <= jitter <= 1:
        raise ValueError("fixed(): jitter is from 0 to 1")
    return Backoff(parse_duration(wait), jitter=jitter)


def schedule(*waits: timedelta | str, jitter: float = 0.0) -> Backoff:
    """Returns a backoff with these waits: ``schedule("5s", "5m")`` means three runs unless ``attempts`` is given.

    Args:
        waits: 1 to 99 waits; with more attempts than waits the last one is repeated.
        jitter: a share from 0 to 1 of each wait that is added at random. 0 by default.

    Raises:
        ValueError: there is no wait or too many, or a value is out of its range.
    """
    if not 0 <= jitter <= 1:
        raise ValueError("schedule(): jitter is from 0 to 1")
    if not 1 <= len(waits) < MAX_ATTEMPTS:
        raise ValueError(f"schedule(): {len(waits)} waits; there are 1 to {MAX_ATTEMPTS - 1}")
    listed = tuple(parse_duration(wait) for wait in waits)
    return Backoff(listed[0], jitter=jitter, listed=listed)


STANDARD = ("5s", "5m", "30m", "2h", "5h", "10h", "14h", "20h", "24h")
"""The waits of ``standard``: the example of Standard Webhooks 1.0 ("Retry schedule"), ten runs in about 75 hours."""


def parse_backoff(text: str | Backoff) -> Backoff:
    """Parses ``exponential:2s``, ``fixed:10s``, ``schedule:5s,5m,30m`` or ``standard``.

    ``:jitter=0.2`` may follow each of them.

    Raises:
        ValueError: ``text`` is not a backoff.
    """
    if isinstance(text, Backoff):
        return text
    match = _BACKOFF.fullmatch(str(text).strip())
    if match is None:
        raise ValueError(f"{text!r} is not a backoff; write exponential:2s, fixed:10s, schedule:5s,5m,30m or standard")
    jitter = float(match[4] or 0)
    if match[1] == "standard":
        return schedule(*STANDARD, jitter=jitter)
    if match[2] == "schedule":
        return schedule(*match[3].split(","), jitter=jitter)
    return (exponential if match[2] == "exponential" else fixed)(match[3], jitter=jitter)
