"""How long to wait before each new attempt."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from rqjobs.config.durations import format_duration, parse_duration

MAX_ATTEMPTS = 100
"""The most runs a job may have; past that a schedule is a bug."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """The wait before each retry: ``base * factor ** n``, at most ``maximum``, plus up to ``jitter`` of it."""

    base: timedelta
    factor: float = 1.0
    maximum: timedelta = timedelta(days=1)
    jitter: float = 0.0

    def waits(self, attempts: int, *, rand: Callable[[], float] = random.random) -> list[float]:
        """The waits in seconds between ``attempts`` runs: one fewer than the runs.

        RQ aligns a retry list at its end, so its length must be exactly the number of retries.
        """
        waits = []
        for retry in range(attempts - 1):
            wait = min(self.base.total_seconds() * self.factor**retry, self.maximum.total_seconds())
            wait += wait * self.jitter * rand() if self.jitter else 0.0
            waits.append(round(wait, 3))
        return waits

    def __str__(self) -> str:
        kind = "fixed" if self.factor == 1.0 else "exponential"
        return f"{kind}:{format_duration(self.base)}"


def exponential(
    base: timedelta | str = timedelta(seconds=2),
    *,
    factor: float = 2.0,
    maximum: timedelta | str = timedelta(hours=24),
    jitter: float = 0.0,
) -> Backoff:
    """Waits of ``base``, ``base * factor``, ``base * factor**2`` ...: by default 2 s, 4 s, 8 s.

    Args:
        base: the first wait.
        factor: what each wait is multiplied by, at least 1.
        maximum: no wait is longer than this (24 hours), before the jitter.
        jitter: a share from 0 to 1 of each wait that is added at random, so that many
            jobs that failed together do not come back together. 0 by default.

    Raises:
        ValueError: a value is out of its range.
    """
    if factor < 1 or not 0 <= jitter <= 1:
        raise ValueError("exponential(): factor is at least 1, jitter from 0 to 1")
    return Backoff(parse_duration(base), factor, parse_duration(maximum), jitter)


def fixed(wait: timedelta | str, *, jitter: float = 0.0) -> Backoff:
    """The same ``wait`` before every retry, plus up to ``jitter`` (0 to 1) of it at random.

    Raises:
        ValueError: a value is out of its range.
    """
    if not 0 <= jitter <= 1:
        raise ValueError("fixed(): jitter is from 0 to 1")
    return Backoff(parse_duration(wait), jitter=jitter)


def parse_backoff(text: str | Backoff) -> Backoff:
    """The backoff that ``text`` says: ``exponential:2s``, ``fixed:10s``, with ``:jitter=0.2`` if wanted.

    Raises:
        ValueError: ``text`` is not a backoff.
    """
    if isinstance(text, Backoff):
        return text
    match = re.fullmatch(r"(exponential|fixed):([^:]+)(?::jitter=([\d.]+))?", str(text).strip())
    if match is None:
        raise ValueError(f"{text!r} is not a backoff; write exponential:2s or fixed:10s")
    make = exponential if match[1] == "exponential" else fixed
    return make(match[2], jitter=float(match[3] or 0))
