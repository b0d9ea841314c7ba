"""The state of destinations in this process: whether each one answers, and how many slots it may use.

One that answers within a second may use every slot, because the order of the queue is fair. One that is slow, silent,
or new gets a quarter of the slots, and all silent ones together half, so that deliveries to others continue.
"""

from __future__ import annotations

import threading
import time

PROMPT = 1.0
"""Seconds: a destination that answers within this time is prompt, one that does not is silent."""
_LOST = 10.0  # seconds after which a job that was admitted but did not start is not counted any more
_KEPT = 10_000
_UNLIMITED = 1_000_000  # more than any batch: the jobs of a batch that exceed the slots wait


class Destination:
    """A registered endpoint, or the URL and webhook_id of jobs without one.

    Used by the event loop and by the admission's thread.
    """

    __slots__ = (
        "_admitted", "answered", "asked_again", "busy_since", "clear_until", "failing", "in_flight", "latency",
        "parks_until", "probes",
    )  # fmt: skip

    def __init__(self) -> None:
        self.in_flight = 0
        self.busy_since = 0.0
        self.answered = 0.0
        self.latency = 0.0
        self.clear_until = 0.0
        """Monotonic time until which the breaker in Redis need not be read."""
        self.failing: frozenset[str] | None = None
        """Its breakers with recent failures; None if they were not read yet."""
        self.asked_again = 0.0
        """Unix time at which the last delivery that waits for its first responses is checked again."""
        self.parks_until = 0.0
        """Unix time of the earliest check of a parked delivery; 0 if there is none."""
        self.probes: set[str] = set()
        self._admitted: dict[str, float] = {}

    @property
    def used(self) -> int:
        """The slots in use, including those of admitted jobs that have not started."""
        return self.in_flight + len(self._admitted)

    def prompt(self, now: float) -> bool:
        """Returns whether it has answered recently and quickly."""
        return now - self.answered < PROMPT and self.latency < PROMPT

    def silent(self, now: float) -> bool:
        """Returns whether deliveries are running, and none of them has ended for a while."""
        return self.in_flight > 0 and now - max(self.answered, self.busy_since) > PROMPT

    def admit(self, job_id: str, now: float) -> None:
        """Records that a job is admitted and will start soon."""
        self._admitted[job_id] = now

    def tidy(self, now: float) -> None:
        """Drops admitted jobs that did not start, for example because the worker has stopped."""
        for job_id, since in list(self._admitted.items()):
            if now - since < _LOST:
                break
            self._admitted.pop(job_id, None)

    def start(self, job_id: str) -> None:
        """Records the start of a delivery."""
        self._admitted.pop(job_id, None)
        if self.in_flight == 0:
            self.busy_since = time.monotonic()
        self.in_flight += 1

    def end(self, seconds: float, *, answered: bool) -> None:
        """Records the end of a delivery after ``seconds``.

        A quick refusal counts as an answer: it uses no slot for long.
        """
        self.in_flight -= 1
        self.latency += (seconds - self.latency) * 0.1
        if answered or seconds < PROMPT:
            self.answered = time.monotonic()


class Destinations:
    """All destinations of this process."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.asks_at = 0.0
        """Unix time until which requests for silent destinations are collected."""
        self._known: dict[str, Destination] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> Destination:
        """Returns the destination ``name``."""
        found = self._known.get(name)
        if found is None:
            with self._lock:
                if len(self._known) >= _KEPT:
                    self._known = {name: item for name, item in self._known.items() if item.used or item.failing}
                found = self._known.setdefault(name, Destination())
        return found

    def unanswered(self, now: float) -> int:
        """Returns the number of slots in use for destinations that are not prompt."""
        return sum(item.used for item in list(self._known.values()) if item.used and not item.prompt(now))

    def room(self, destination: Destination, unanswered: int, now: float) -> int:
        """Returns how many more deliveries to ``destination`` may start now."""
        destination.tidy(now)
        if destination.prompt(now):
            return _UNLIMITED
        if destination.used == 0 and destination.answered and destination.latency < PROMPT:
            # It is idle, and was quick until then: its next delivery does not wait for slots of those that are silent.
            return max(0, min(1, self.slots * 3 // 4 - unanswered))
        share = max(1, self.slots // 4) - destination.used
        return max(0, min(share, max(1, self.slots // 2) - unanswered))
