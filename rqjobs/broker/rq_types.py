"""RQ's names for other packages, which import them from here: only ``broker`` and ``worker`` import RQ."""

from __future__ import annotations

import redis
from rq import Queue
from rq.job import Job
from rq.utils import as_text
from rq.version import VERSION

__all__ = ["VERSION", "Job", "as_text", "waiting_by_queue"]


def waiting_by_queue(client: redis.Redis) -> dict[str, int]:
    """Returns the number of waiting jobs in each lane of which RQ has a record, registered here or not."""
    return {queue.name: queue.count for queue in Queue.all(connection=client)}
