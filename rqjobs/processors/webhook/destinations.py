"""The state of destinations in this process: whether each answers, and how many slots it may use.

One that answers within a second may use every slot: the queue's order is fair enough. One that is slow, silent, or
not known yet gets a quarter of them, and all the silent ones together half, so that the others always go on.
"""

from __future__ import annotations

import threading
import time

PROMPT = 1.0
"""Seconds: a destination that answers within them is prompt, one that does not is silent."""
_LOST = 10.0  # seconds after which a job that was admitted and never started is no longer counted
_KEPT = 10_000
_UNLIMITED = 1_000_000  # more than come at once: a batch may be larger than the slots, which its end then waits for


class Destination:
    """Where deliveries go: a registered endpoint, or the URL and webhook_id of jobs that name none.

    Used by the event loop and by the thread that admits.
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
        """Those of its breakers that have counted failures lately; None if they were not read yet."""
        self.asked_again = 0.0
        """Unix time: when the last of the deliveries that wait for its first responses is checked again."""
        self.parks_until = 0.0
        """Unix time: the earliest trial of a parked delivery that the breaker has set; 0 if none."""
        self.probes: set[str] = set()
        self._admitted: dict[str, float] = {}

    @property
    def used(self) -> int:
        """Slots in use, and about to be."""
        return self.in_flight + len(self._admitted)

    def prompt(self, now: float) -> bool:
        """Whether it has answered lately, and soon."""
        return now - self.answered < PROMPT and self.latency < PROMPT

    def silent(self, now: float) -> bool:
        """Whether deliveries are under way, and none has ended for a while."""
        return self.in_flight > 0 and now - max(self.answered, self.busy_since) > PROMPT

    def admit(self, job_id: str, now: float) -> None:
        """A job will start in a moment."""
        self._admitted[job_id] = now

    def tidy(self, now: float) -> None:
        """Forgets jobs that were admitted and never came: handed back when the worker stops, for example."""
        for job_id, since in list(self._admitted.items()):
            if now - since < _LOST:
                break
            self._admitted.pop(job_id, None)

    def start(self, job_id: str) -> None:
        """A delivery begins."""
        self._admitted.pop(job_id, None)
        if self.in_flight == 0:
            self.busy_since = time.monotonic()
        self.in_flight += 1

    def end(self, seconds: float, *, answered: bool) -> None:
        """A delivery has ended after ``seconds``; a quick refusal is an answer too: it holds no slot."""
        self.in_flight -= 1
        self.latency += (seconds - self.latency) * 0.1
        if answered or seconds < PROMPT:
            self.answered = time.monotonic()


class Destinations:
    """All destinations of this process."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.asks_at = 0.0
        """Unix time until which requests about silent destinations are gathered."""
        self._known: dict[str, Destination] = {}
        self._lock = threading.Lock()

    def get(self, name: str) -> Destination:
        """The destination ``name``."""
        found = self._known.get(name)
        if found is None:
            with self._lock:
                if len(self._known) >= _KEPT:
                    self._known = {name: item for name, item in self._known.items() if item.used or item.failing}
                found = self._known.setdefault(name, Destination())
        return found

    def unanswered(self, now: float) -> int:
        """Slots held for destinations that are not known to be prompt."""
        return sum(item.used for item in list(self._known.values()) if item.used and not item.prompt(now))

    def room(self, destination: Destination, unanswered: int, now: float) -> int:
        """How many more deliveries may go to ``destination`` now."""
        destination.tidy(now)
        if destination.prompt(now):
            return _UNLIMITED
        share = max(1, self.slots // 4) - destination.used
        return max(0, min(share, max(1, self.slots // 2) - unanswered))
