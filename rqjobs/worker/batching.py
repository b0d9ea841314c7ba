"""Decides when the worker loop sends requests: a busy loop waits a little, so that each request carries many jobs."""

from __future__ import annotations

import time
from collections.abc import Collection

from rqjobs.worker.queue_state import BATCH_SIZE, QueueState

BUSY_RATE = 500.0
"""Jobs per second above which the loop is busy: then a request for each job would cost more than the job itself."""

MIN_BATCH = 100
"""The number of outcomes, or of free slots, for which a busy loop sends a request before its poll interval is over."""

POLL_INTERVAL = 0.004
"""Seconds from a response to the next request of a busy loop: below this a call costs more than the jobs it carries."""

FLUSH_INTERVAL = 0.02
"""Seconds that an outcome waits for others in a busy loop. Done jobs of one batch beyond the number to keep are deleted
without being written first."""

MAX_IN_FLIGHT = 3
"""The most requests in flight in a busy loop: Redis runs one while the responses to the others are read."""

MEASURE_INTERVAL = 0.02
"""Seconds between two measurements of the rates: short, so that the loop reacts to a burst of jobs at once."""


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
        """The most requests that may be in flight."""
        return MAX_IN_FLIGHT if self.busy else 1

    @property
    def wake_up_size(self) -> int:
        """The number of outcomes that ends the loop's sleep."""
        return MIN_BATCH if self.busy else 1

    def min_claim(self, now: float) -> int:
        """Returns the least number of free slots for which a claim is sent."""
        return MIN_BATCH if self.busy and now - self._answered_at < POLL_INTERVAL else 1

    def is_time_to_write(self, now: float, unwritten: int) -> bool:
        """Returns whether ``unwritten`` outcomes are to be written now."""
        return not self.busy or now - self._written_at >= FLUSH_INTERVAL or unwritten >= BATCH_SIZE

    def written(self, now: float) -> None:
        """Records that outcomes were sent."""
        self._written_at = now

    def answered(self, now: float) -> None:
        """Records that a response has arrived."""
        self._answered_at = now

    def poll_timeout(self, now: float) -> float:
        """Returns the most seconds that a busy loop sleeps before its next request."""
        return max(POLL_INTERVAL - (now - self._answered_at), 0.0005)

    @property
    def next_measurement(self) -> float:
        """The time (``time.monotonic()``) of the next measurement that is needed, while jobs wait for a thread."""
        return self._measured_at + MEASURE_INTERVAL if self._jobs_wait else float("inf")

    def measure(self, now: float) -> None:
        """Updates the rates once per measure interval, and makes each runner start jobs that wait for a thread."""
        seconds = now - self._measured_at
        if seconds < MEASURE_INTERVAL:
            return
        for queue in self._queues:
            queue.rate = queue.settled / seconds
            queue.settled = 0
        self.busy = sum(queue.rate for queue in self._queues) > BUSY_RATE
        self._measured_at = now
        self._jobs_wait = sum(queue.runner.check_waiting() for queue in self._queues) > 0  # calls each
