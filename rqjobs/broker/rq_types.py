"""RQ's names for other packages, which import them from here: only ``broker`` and ``worker`` import RQ."""

from __future__ import annotations

import contextlib
from typing import Any

import redis
from rq import Queue
from rq.job import Job
from rq.version import VERSION

__all__ = ["VERSION", "Job", "KnownQueue", "as_text", "waiting_by_queue"]


def as_text(value: bytes | str) -> str:
    """Returns a text from Redis as str; bytes that are not UTF-8 are replaced."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


class KnownQueue(Queue):
    """RQ's queue, with a list of all queues that skips entries which are not keys of queues."""

    @classmethod
    def all(cls, connection: redis.Redis, *_args: Any, **_options: Any) -> list[Queue]:
        """Returns every lane of which RQ has a record."""
        found: list[Queue] = []
        members: Any = connection.smembers(cls.redis_queues_keys)
        for name in members:
            with contextlib.suppress(ValueError):  # not UTF-8, or without RQ's prefix
                found.append(cls.from_queue_key(name.decode(), connection=connection))
        return found


def waiting_by_queue(client: redis.Redis) -> dict[str, int]:
    """Returns the number of waiting jobs in each lane of which RQ has a record, registered here or not."""
    return {queue.name: queue.count for queue in KnownQueue.all(connection=client)}
