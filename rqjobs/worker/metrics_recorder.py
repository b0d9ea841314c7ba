"""Counts the metrics of jobs in memory, and writes them to Redis once a second."""

from __future__ import annotations

import threading
from collections import defaultdict
from datetime import datetime

import redis

from rqjobs.monitoring.metrics import Figures, Outcome, write
from rqjobs.worker.claimed_job import ClaimedJob

_OUTCOMES: dict[str, Outcome] = {"done": "done", "retry": "retried", "dead": "dead", "stopped": "dead"}


class MetricsRecorder:
    """Counts outcomes in the loop's thread; the maintenance thread writes the sums."""

    def __init__(self) -> None:
        self._by_queue: defaultdict[str, Figures] = defaultdict(Figures)
        self._lock = threading.Lock()

    def settled(self, job: ClaimedJob) -> None:
        """Counts one outcome, unless the job was released or held without a run."""
        outcome = job.outcome
        if outcome is None or (name := _OUTCOMES.get(outcome.name)) is None:
            return
        waited = _waited(job.enqueued_at, outcome.started)
        with self._lock:
            self._by_queue[job.policy.name].count(name, outcome.ended - outcome.started, waited)

    def flush(self, client: redis.Redis) -> None:
        """Writes the counts since the last call. They are kept while Redis does not answer."""
        with self._lock:
            by_queue, self._by_queue = self._by_queue, defaultdict(Figures)
        try:
            write(by_queue, client)
        except redis.exceptions.RedisError:
            with self._lock:
                for queue, figures in by_queue.items():
                    self._by_queue[queue].add(figures)
            raise


def _waited(enqueued_at: bytes, started: float) -> float | None:
    try:
        return started - datetime.fromisoformat(enqueued_at.decode()).timestamp()
    except ValueError:
        return None
