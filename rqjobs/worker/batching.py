"""How fast the engine's loop goes: where many jobs end it takes its time, so that each call to Redis is for many."""

from __future__ import annotations

import time
from collections.abc import Collection

from rqjobs.worker.queue_state import BATCH, Line

FAST = 500.0
"""Jobs a second from which on the loop takes its time:"""

ENOUGH = 100
"""outcomes, or jobs to take, that are worth a call,"""

PACE = 0.004
"""seconds after which one comes all the same,"""

LINGER = 0.02
"""seconds that an outcome waits for others (of what ends in one batch only the kept ones need be written),"""

FLYING = 3
"""and questions under way: Redis works at one while the answers to the others are read."""

LOOK = 0.02
"""Seconds from one look at how things go to the next."""


class Pace:
    """What the loop knows of its speed. For the loop's thread only."""

    def __init__(self, lines: Collection[Line]) -> None:
        self._lines = lines
        self._looked = time.monotonic()
        self._nudged = False
        self._heard = 0.0
        self._wrote = 0.0
        self.fast = False
        """Whether so many jobs end that the loop takes its time."""

    @property
    def questions(self) -> int:
        """How many questions may be under way."""
        return FLYING if self.fast else 1

    @property
    def enough(self) -> int:
        """How many outcomes are worth being woken for."""
        return ENOUGH if self.fast else 1

    def least(self, now: float) -> int:
        """How many jobs of a queue are worth being asked for."""
        return ENOUGH if self.fast and now - self._heard < PACE else 1

    def is_time_to_write(self, now: float, unwritten: int) -> bool:
        """Whether so many outcomes are to be written now."""
        return not self.fast or now - self._wrote >= LINGER or unwritten >= BATCH

    def wrote(self, now: float) -> None:
        """Outcomes are on their way."""
        self._wrote = now

    def heard(self, now: float) -> None:
        """Redis has answered."""
        self._heard = now

    def rest(self, now: float) -> float:
        """Seconds until a busy loop looks for something to say."""
        return max(PACE - (now - self._heard), 0.0005)

    @property
    def next_look(self) -> float:
        """When jobs that wait for a thread are to be looked at again, ``time.monotonic()``."""
        return self._looked + LOOK if self._nudged else float("inf")

    def look(self, now: float) -> None:
        """Counts what has ended since the last look, and sees to it that waiting jobs are begun."""
        took = now - self._looked
        if took < LOOK:
            return
        for line in self._lines:
            line.rate = line.settled / took
            line.settled = 0
        self.fast = sum(line.rate for line in self._lines) > FAST
        self._looked = now
        self._nudged = sum(line.runner.nudge() for line in self._lines) > 0  # each of them
