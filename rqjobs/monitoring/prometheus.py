"""The metrics for Prometheus.

All metrics are of the whole system and are stored in Redis, so every worker and the dashboard return the same ones. If
you scrape several of them, use ``max`` over the instances, not ``sum``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import redis
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from rqjobs.monitoring.metrics import BUCKETS, OUTCOMES, Figures, Histogram, totals
from rqjobs.monitoring.queue_health import QueueHealth, queue_health
from rqjobs.monitoring.workers import slots_of, workers
from rqjobs.policies import policies

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(connection: redis.Redis) -> bytes:
    """Returns the metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(_Ours(connection))
    return generate_latest(registry)


class _Ours(Collector):
    def __init__(self, connection: redis.Redis) -> None:
        self._connection = connection

    def describe(self) -> Iterable[Metric]:
        """Describes no metric in advance, so that Redis is read only at a scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yields all metric families."""
        yield from _queues(self._connection)
        yield from _runs(totals(self._connection))
        alive = workers(self._connection)
        yield GaugeMetricFamily("rqjobs_workers", "Workers that are alive.", value=len(alive))
        slots = GaugeMetricFamily("rqjobs_worker_slots", "Jobs that all workers run at once.", labels=["queue"])
        for queue, number in slots_of(alive).items():
            slots.add_metric([queue], number)
        yield slots


def _queues(connection: redis.Redis) -> Iterator[Metric]:
    found = queue_health(connection)
    depth = GaugeMetricFamily("rqjobs_queue_jobs", "Jobs by queue and state.", labels=["queue", "state"])
    oldest = GaugeMetricFamily(
        "rqjobs_queue_oldest_seconds", "How long the oldest waiting job waits; 0 if none does.", labels=["queue"]
    )
    paused = GaugeMetricFamily("rqjobs_queue_paused", "1 if the queue is paused.", labels=["queue"])
    healthy = GaugeMetricFamily("rqjobs_queue_healthy", "1 if nothing needs a person.", labels=["queue"])
    listening = GaugeMetricFamily("rqjobs_queue_workers", "Workers that listen to the queue.", labels=["queue"])
    dropped = CounterMetricFamily(
        "rqjobs_dead_dropped", "Dead letters deleted because more than RQJOBS_KEEP_FAILED died.", labels=["queue"]
    )
    for queue in found:
        dropped.add_metric([queue.name], queue.dropped)
        states = {"waiting": queue.waiting, "running": queue.active, "delayed": queue.delayed, "dead": queue.failed}
        for state, number in states.items():
            depth.add_metric([queue.name, state], number)
        oldest.add_metric([queue.name], queue.oldest.total_seconds() if queue.oldest else 0)
        paused.add_metric([queue.name], queue.paused)
        healthy.add_metric([queue.name], queue.healthy)
        listening.add_metric([queue.name], queue.workers)
    yield from (depth, oldest, paused, healthy, listening, dropped)
    yield from _dependencies(found)


def _dependencies(queues: Iterable[QueueHealth]) -> Iterator[Metric]:
    labels = ["dependency", "queue", "scope"]
    since = GaugeMetricFamily(
        "rqjobs_dependency_away_seconds", "For how long a queue waits for a dependency that is away.", labels=labels
    )
    trial = GaugeMetricFamily(
        "rqjobs_dependency_next_trial_seconds", "Seconds until the dependency is tried again.", labels=labels
    )
    now = datetime.now(UTC)
    for queue in queues:
        for away in queue.away:
            names = [away.dependency, away.queue, away.scope]
            since.add_metric(names, max(0.0, (now - away.since).total_seconds()))
            trial.add_metric(names, max(0.0, (away.next_trial - now).total_seconds()))
    yield from (since, trial)


def _runs(by_queue: dict[str, Figures]) -> Iterator[Metric]:
    runs = CounterMetricFamily(
        "rqjobs_runs", "Runs that ended, by outcome: done, retried or dead.", labels=["queue", "outcome"]
    )
    durations = HistogramMetricFamily("rqjobs_run_seconds", "How long runs took.", labels=["queue"])
    waits = HistogramMetricFamily(
        "rqjobs_wait_seconds", "From the moment at which a job could run to its start.", labels=["queue"]
    )
    for policy in policies():
        figures = by_queue.get(policy.name, Figures())
        for outcome in OUTCOMES:
            runs.add_metric([policy.name, outcome], figures.outcomes[outcome])
        durations.add_metric([policy.name], _buckets(figures.durations), figures.durations.sum)
        waits.add_metric([policy.name], _buckets(figures.waits), figures.waits.sum)
    yield from (runs, durations, waits)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Returns the cumulative buckets of Prometheus."""
    total, buckets = 0, []
    for bound, count in zip([*map(str, BUCKETS), "+Inf"], histogram.counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets
