"""RQ's names that other packages use: they import them from here, and only ``broker`` and ``worker`` import RQ."""

from __future__ import annotations

import redis
from rq import Queue
from rq.job import Job
from rq.utils import as_text
from rq.version import VERSION

__all__ = ["VERSION", "Job", "as_text", "waiting_by_queue"]


def waiting_by_queue(client: redis.Redis) -> dict[str, int]:
    """How many jobs wait in each named queue (lane) that RQ has a record of, registered here or not."""
    return {queue.name: queue.count for queue in Queue.all(connection=client)}
