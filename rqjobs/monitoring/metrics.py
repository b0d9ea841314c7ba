"""Counters and histograms of what ran, in Redis: written in sums, they outlive workers and add up over all.

Each sample goes into two hashes of the same fields, the totals and the minute's. A field is ``queue/what``, where
what is an outcome, ``t:300`` (the bucket of durations up to 300 s; ``t:inf`` what took longer), ``w:300`` (of waits),
``t+`` or ``w+`` (their sums in microseconds), ``t^`` or ``w^`` (the longest, in microseconds). Buckets are kept apart
here and added up when they are read. Earlier versions numbered their buckets: ``t3`` is the fourth of ``_NUMBERED``.
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
"""Upper bounds of the histograms' buckets in seconds; one more is for what took longer."""

_NUMBERED = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, float("inf"))
_NAMES = (*(f":{bound:g}" for bound in BUCKETS), ":inf")

MINUTES = 60
"""How many minutes the overview looks back."""

_KEPT = (MINUTES + 5) * 60


class Sample(NamedTuple):
    """One run that ended."""

    queue: str
    """The queue, or a lane of it."""
    outcome: Outcome
    seconds: float
    """How long it ran."""
    waited: float | None
    """Seconds from the moment at which it could have run to its start; None where that is not known."""


@dataclass
class Histogram:
    """How often something took how long."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    """One count a bucket, not added up."""
    sum: float = 0.0
    """Seconds in all."""
    longest: float | None = None
    """The seconds of the longest; None if it is not known."""

    def observe(self, seconds: float) -> None:
        """Counts one."""
        seconds = max(0.0, seconds)  # clocks differ
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.sum += seconds
        if self.longest is None or seconds > self.longest:
            self.longest = seconds

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)

    def quantile(self, share: float) -> float | None:
        """The quantile ``share`` (0 to 1) in seconds, estimated from the buckets; None without jobs.

        It is interpolated within a bucket, and never longer than the longest.
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
        """Counts what ``other`` holds as well."""
        self.counts = [ours + theirs for ours, theirs in zip(self.counts, other.counts, strict=True)]
        self.sum += other.sum
        if other.longest is not None:
            self.longest = other.longest if self.longest is None else max(self.longest, other.longest)

    def fields(self, name: str) -> Iterator[str | int]:
        """The fields of a hash that hold it, and by how much each grows."""
        for bucket, count in zip(_NAMES, self.counts, strict=True):
            if count:
                yield from (f"{name}{bucket}", count)
        if self.sum:
            yield from (f"{name}+", round(self.sum * 1_000_000))
        if self.longest is not None:
            yield from (f"{name}^", round(self.longest * 1_000_000))

    def read(self, name: str, value: int) -> None:
        """Takes one field of a hash, without the histogram's own letter.

        Raises:
            ValueError, LookupError: it is no field of a histogram.
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
    """What ran on one queue, in a minute or since it exists."""

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
        """The fields of a hash that hold it, and by how much each grows."""
        for outcome, count in self.outcomes.items():
            yield from (f"{queue}/{outcome}", count)
        yield from self.durations.fields(f"{queue}/t")
        yield from self.waits.fields(f"{queue}/w")

    def add(self, other: Figures) -> None:
        """Counts what ``other`` holds as well."""
        self.outcomes.update(other.outcomes)
        self.durations.add(other.durations)
        self.waits.add(other.waits)


def record(samples: Iterable[Sample], connection: redis.Redis, *, now: float | None = None) -> None:
    """Counts ``samples``, in one round trip however many they are."""
    by_queue: defaultdict[str, Figures] = defaultdict(Figures)
    for sample in samples:
        by_queue[base_queue(sample.queue)].count(sample.outcome, sample.seconds, sample.waited)
    write(by_queue, connection, now=now)


def write(by_queue: Mapping[str, Figures], connection: redis.Redis, *, now: float | None = None) -> None:
    """Adds what ran to the totals and to the minute of ``now`` (Redis' own time by default), in one step."""
    fields = [word for queue, figures in by_queue.items() for word in figures.fields(queue)]
    if not fields:
        return
    minute = "" if now is None else int(now // 60)
    run_script("record", client_of(connection), [keys.PREFIX, minute, _KEPT, *fields])


def redis_time(connection: redis.Redis) -> float:
    """The time by Redis' clock, in seconds of Unix time."""
    seconds, micros = client_of(connection).time()
    return seconds + micros / 1_000_000


def totals(connection: redis.Redis) -> dict[str, Figures]:
    """What ran since the queues exist, by queue."""
    answer: Any = client_of(connection).hgetall(keys.METRICS)
    return _figures(answer.items())


def last_hour(connection: redis.Redis, *, now: float | None = None) -> list[dict[str, Figures]]:
    """What ran in each of the last 60 minutes, oldest first, the running minute last; by queue."""
    newest = int((redis_time(connection) if now is None else now) // 60)
    with client_of(connection).pipeline(transaction=False) as pipeline:
        for minute in range(newest - MINUTES + 1, newest + 1):
            pipeline.hgetall(keys.minute(minute))
        return [_figures(answer.items()) for answer in pipeline.execute()]


def together(figures: Iterable[Figures]) -> Figures:
    """All of ``figures`` added up."""
    whole = Figures()
    for one in figures:
        whole.add(one)
    return whole


def _figures(fields: Iterable[tuple[bytes, bytes]]) -> dict[str, Figures]:
    by_queue: dict[str, Figures] = {}
    for name, value in fields:
        queue, _, what = name.decode(errors="replace").rpartition("/")
        with contextlib.suppress(ValueError, LookupError):  # a field that is not ours, or no number
            _read_field(by_queue.setdefault(queue, Figures()), what, int(value))
    return by_queue


def _read_field(figures: Figures, what: str, value: int) -> None:
    if what in OUTCOMES:
        figures.outcomes[what] = value
        return
    {"t": figures.durations, "w": figures.waits}[what[:1]].read(what[1:], value)
