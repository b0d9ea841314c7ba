"""When the worker loop talks to Redis: a busy loop waits a little, so that each request carries many jobs."""

from __future__ import annotations

import time
from collections.abc import Collection

from rqjobs.worker.queue_state import BATCH_SIZE, QueueState

BUSY_RATE = 500.0
"""Jobs per second from which on the loop is busy: above it, a request for each job costs more than the job itself."""

MIN_BATCH = 100
"""Outcomes, or free slots, for which a busy loop sends a request before its poll interval is over."""

POLL_INTERVAL = 0.004
"""Seconds from a response to the next request of a busy loop: below this a call costs more than the jobs it carries."""

FLUSH_INTERVAL = 0.02
"""Seconds that an outcome waits for others in a busy loop. The done jobs of one batch that are over the number to keep
are deleted without being written first."""

MAX_IN_FLIGHT = 3
"""Requests on their way at once in a busy loop: Redis works at one while the responses to the others are read."""

MEASURE_INTERVAL = 0.02
"""Seconds from one measurement of the rates to the next: short, so that a burst of jobs is noticed at once."""


class Batching:
    """Measures the loop's rate and derives batch sizes and waits from it. For the loop's thread only."""

    def __init__(self, queues: Collection[QueueState]) -> None:
        self._queues = queues
        self._measured_at = time.monotonic()
        self._jobs_wait = False
        self._answered_at = 0.0
        self._written_at = 0.0
        self.busy = False
        """Whether more than ``BUSY_RATE`` jobs per second end."""

    @property
    def max_in_flight(self) -> int:
        """How many requests may be in flight."""
        return MAX_IN_FLIGHT if self.busy else 1

    @property
    def wake_up_size(self) -> int:
        """How many outcomes end the loop's sleep."""
        return MIN_BATCH if self.busy else 1

    def min_claim(self, now: float) -> int:
        """The least number of jobs of a queue for which a claim is sent."""
        return MIN_BATCH if self.busy and now - self._answered_at < POLL_INTERVAL else 1

    def is_time_to_write(self, now: float, unwritten: int) -> bool:
        """Whether ``unwritten`` outcomes are to be written now."""
        return not self.busy or now - self._written_at >= FLUSH_INTERVAL or unwritten >= BATCH_SIZE

    def written(self, now: float) -> None:
        """Records that outcomes were sent."""
        self._written_at = now

    def answered(self, now: float) -> None:
        """Records that a response has come."""
        self._answered_at = now

    def poll_timeout(self, now: float) -> float:
        """Seconds that a busy loop sleeps at most before its next request."""
        return max(POLL_INTERVAL - (now - self._answered_at), 0.0005)

    @property
    def next_measurement(self) -> float:
        """The ``time.monotonic()`` of the next measurement that is needed: while jobs wait for a thread."""
        return self._measured_at + MEASURE_INTERVAL if self._jobs_wait else float("inf")

    def measure(self, now: float) -> None:
        """Updates the rates once per measure interval, and has each runner start the jobs that wait for a thread."""
        seconds = now - self._measured_at
        if seconds < MEASURE_INTERVAL:
            return
        for queue in self._queues:
            queue.rate = queue.settled / seconds
            queue.settled = 0
        self.busy = sum(queue.rate for queue in self._queues) > BUSY_RATE
        self._measured_at = now
        self._jobs_wait = sum(queue.runner.check_waiting() for queue in self._queues) > 0  # all of them, not the first
