"""Counters and histograms of runs, stored in Redis as sums, so that they outlive workers and cover all of them.

Each sample is added to two hashes with the same fields, the totals and those of the minute. A field is ``queue/name``,
where the name is an outcome, ``t:300`` (the bucket of durations up to 300 s; ``t:inf`` for longer ones), ``w:300`` (of
waits), ``t+`` or ``w+`` (their sums in microseconds), ``t^`` or ``w^`` (the longest, in microseconds). Buckets are
stored separately and accumulated when they are read. Earlier versions numbered their buckets: ``t3`` is the fourth of
``_NUMBERED``.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import redis

from rqjobs.broker import keys
from rqjobs.broker.connection import client_of
from rqjobs.broker.rq_schema import run_script
from rqjobs.policies import base_queue

Outcome = Literal["done", "retried", "dead"]
OUTCOMES: tuple[Outcome, ...] = ("done", "retried", "dead")

BUCKETS = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 450, 600, 900, 1200,
    1800, 2700, 3600, 7200, 14400, 43200, 86400,
)  # fmt: skip
"""The upper bounds of the histograms' buckets in seconds; a further bucket is for longer ones."""

_NUMBERED = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, float("inf"))
_NAMES = (*(f":{bound:g}" for bound in BUCKETS), ":inf")

MINUTES = 60
"""The number of minutes that the overview shows."""

_KEPT = (MINUTES + 5) * 60


class Sample(NamedTuple):
    """One completed run."""

    queue: str
    """The queue, or one of its lanes."""
    outcome: Outcome
    seconds: float
    """The duration of the run."""
    waited: float | None
    """Seconds from the time at which the job was ready to run until it began; None if unknown."""


@dataclass
class Histogram:
    """The distribution of durations."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    """The count of each bucket, not accumulated."""
    sum: float = 0.0
    """The total seconds."""
    longest: float | None = None
    """The longest duration in seconds; None if unknown."""

    def observe(self, seconds: float) -> None:
        """Counts one duration."""
        seconds = max(0.0, seconds)  # clocks differ
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.sum += seconds
        if self.longest is None or seconds > self.longest:
            self.longest = seconds

    @property
    def count(self) -> int:
        """The number of durations."""
        return sum(self.counts)

    def quantile(self, share: float) -> float | None:
        """Returns the quantile ``share`` (0 to 1) in seconds, estimated from the buckets; None if there are none.

        It is interpolated within a bucket, and at most the longest duration.
        """
        wanted, seen = share * self.count, 0
        for index, count in enumerate(self.counts):
            if count and seen + count >= wanted:
                low = BUCKETS[index - 1] if index else 0.0
                longest = low if self.longest is None else max(low, self.longest)
                high = BUCKETS[index] if index < len(BUCKETS) else longest
                if self.longest is not None:
                    high = min(high, longest)
                return low + (high - low) * (wanted - seen) / count
            seen += count
        return None

    def add(self, other: Histogram) -> None:
        """Adds the counts of ``other``."""
        self.counts = [ours + theirs for ours, theirs in zip(self.counts, other.counts, strict=True)]
        self.sum += other.sum
        if other.longest is not None:
            self.longest = other.longest if self.longest is None else max(self.longest, other.longest)

    def fields(self, name: str) -> Iterator[str | int]:
        """Yields the fields of the histogram in a hash, each followed by its increment."""
        for bucket, count in zip(_NAMES, self.counts, strict=True):
            if count:
                yield from (f"{name}{bucket}", count)
        if self.sum:
            yield from (f"{name}+", round(self.sum * 1_000_000))
        if self.longest is not None:
            yield from (f"{name}^", round(self.longest * 1_000_000))

    def read(self, name: str, value: int) -> None:
        """Reads one field of a hash, without the letter of the histogram.

        Raises:
            ValueError, LookupError: it is not a field of a histogram.
        """
        if name == "+":
            self.sum = value / 1_000_000
        elif name == "^":
            self.longest = value / 1_000_000
        else:
            bound = float(name[1:]) if name[:1] == ":" else _NUMBERED[int(name)]
            self.counts[bisect_left(BUCKETS, bound)] += value


@dataclass
class Figures:
    """The metrics of one queue, in one minute or in total."""

    outcomes: Counter[str] = field(default_factory=Counter)
    durations: Histogram = field(default_factory=Histogram)
    waits: Histogram = field(default_factory=Histogram)

    def count(self, outcome: Outcome, seconds: float, waited: float | None) -> None:
        """Counts one run; ``seconds`` and ``waited`` as in :class:`Sample`."""
        self.outcomes[outcome] += 1
        self.durations.observe(seconds)
        if waited is not None:
            self.waits.observe(waited)

    def fields(self, queue: str) -> Iterator[str | int]:
        """Yields the fields of the metrics in a hash, each followed by its increment."""
        for outcome, count in self.outcomes.items():
            yield from (f"{queue}/{outcome}", count)
        yield from self.durations.fields(f"{queue}/t")
        yield from self.waits.fields(f"{queue}/w")

    def add(self, other: Figures) -> None:
        """Adds the counts of ``other``."""
        self.outcomes.update(other.outcomes)
        self.durations.add(other.durations)
        self.waits.add(other.waits)


def record(samples: Iterable[Sample], connection: redis.Redis, *, now: float | None = None) -> None:
    """Counts ``samples``, in one round trip."""
    by_queue: defaultdict[str, Figures] = defaultdict(Figures)
    for sample in samples:
        by_queue[base_queue(sample.queue)].count(sample.outcome, sample.seconds, sample.waited)
    write(by_queue, connection, now=now)


def write(by_queue: Mapping[str, Figures], connection: redis.Redis, *, now: float | None = None) -> None:
    """Adds the metrics to the totals and to the minute of ``now`` (by default Redis' time), in one step."""
    fields = [word for queue, figures in by_queue.items() for word in figures.fields(queue)]
    if not fields:
        return
    minute = "" if now is None else int(now // 60)
    run_script("record", client_of(connection), [keys.PREFIX, minute, _KEPT, *fields])


def redis_time(connection: redis.Redis) -> float:
    """Returns the time by Redis' clock, in Unix seconds."""
    seconds, micros = client_of(connection).time()
    return seconds + micros / 1_000_000


def totals(connection: redis.Redis) -> dict[str, Figures]:
    """Returns the total metrics by queue."""
    answer: Any = client_of(connection).hgetall(keys.METRICS)
    return _figures(answer.items())


def last_hour(connection: redis.Redis, *, now: float | None = None) -> list[dict[str, Figures]]:
    """Returns the metrics of the last 60 minutes by queue, oldest first; the current minute is the last."""
    newest = int((redis_time(connection) if now is None else now) // 60)
    with client_of(connection).pipeline(transaction=False) as pipeline:
        for minute in range(newest - MINUTES + 1, newest + 1):
            pipeline.hgetall(keys.minute(minute))
        return [_figures(answer.items()) for answer in pipeline.execute()]


def together(figures: Iterable[Figures]) -> Figures:
    """Returns the sum of all ``figures``."""
    whole = Figures()
    for one in figures:
        whole.add(one)
    return whole


def _figures(fields: Iterable[tuple[bytes, bytes]]) -> dict[str, Figures]:
    by_queue: dict[str, Figures] = {}
    for name, value in fields:
        queue, _, what = name.decode(errors="replace").rpartition("/")
        with contextlib.suppress(ValueError, LookupError):  # a field that is not one of ours, or not a number
            _read_field(by_queue.setdefault(queue, Figures()), what, int(value))
    return by_queue


def _read_field(figures: Figures, what: str, value: int) -> None:
    if what in OUTCOMES:
        figures.outcomes[what] = value
        return
    {"t": figures.durations, "w": figures.waits}[what[:1]].read(what[1:], value)
