"""What the metrics say of single jobs: gathered here, written to Redis once a second."""

from __future__ import annotations

import threading
from datetime import datetime

import redis

from rqjobs.metrics import Outcome, Sample, Tally, write
from rqjobs.worker.taken import Taken

_OUTCOMES: dict[str, Outcome] = {"done": "done", "retry": "retried", "dead": "dead", "stop": "dead"}


class Meter:
    """Counts outcomes in the engine's loop; another thread writes the sums."""

    def __init__(self) -> None:
        self._tally = Tally()
        self._lock = threading.Lock()

    def settled(self, job: Taken) -> None:
        """Counts one outcome; what was handed back or held has not run."""
        outcome = job.outcome
        if outcome is None or (name := _OUTCOMES.get(outcome.how)) is None:
            return
        sample = Sample(job.lane, name, outcome.ended - outcome.started, _waited(job.enqueued_at, outcome.started))
        with self._lock:
            self._tally.add(sample)

    def flush(self, client: redis.Redis) -> None:
        """Writes what was counted since the last time. If Redis is away, it is kept and written later."""
        with self._lock:
            tally, self._tally = self._tally, Tally()
        try:
            write(tally, client)
        except redis.exceptions.RedisError:
            with self._lock:
                self._tally.merge(tally)
            raise


def _waited(enqueued_at: bytes, started: float) -> float | None:
    try:
        return started - datetime.fromisoformat(enqueued_at.decode()).timestamp()
    except ValueError:
        return None
