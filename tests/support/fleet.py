"""Workers as Redis shows them, without a process."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import redis as redis_py
from rq.version import VERSION

from rqjobs.broker.rq_schema import key, rqjobs_version
from rqjobs.policies import policies


def stamp(ago: float = 0.0) -> str:
    return datetime.fromtimestamp(time.time() - ago, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def worker(redis: redis_py.Redis, name: str = "w1", **changed: str) -> None:
    """A worker as Redis shows it."""
    queues = [policy.name for policy in policies()]
    fields = {"birth": stamp(100), "last_heartbeat": stamp(), "queues": ",".join(queues), "state": "idle",
              "version": VERSION, "rqjobs_version": rqjobs_version(), "hostname": "here", "pid": "1"}  # fmt: skip
    redis.hset(key("worker", name), mapping={**fields, **changed})
    redis.sadd(key("workers"), key("worker", name))
    for queue in changed.get("queues", ",".join(queues)).split(","):
        redis.sadd(key("workers", queue), key("worker", name))
