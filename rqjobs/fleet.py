"""The workers that are alive: what each listens to, runs, and may run at once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

import redis
from rq.utils import as_text

from rqjobs.connection import get_connection
from rqjobs.layout import key
from rqjobs.queues import base_queue


@dataclass(frozen=True, kw_only=True)
class WorkerState:
    """One worker that is alive."""

    name: str
    state: str
    """``idle``, ``busy``, ``suspended`` ..."""
    queues: tuple[str, ...]
    """The queues it listens to, their lanes left out."""
    running: int
    """Jobs that it runs now."""
    since: datetime | None
    heartbeat: datetime | None
    host: str
    pid: int | None
    done: int
    failed: int
    """Attempts that failed, retried ones included."""
    version: str
    """Of RQ."""
    rqjobs_version: str | None
    """None for a stock ``rq worker``."""
    slots: Mapping[str, int]
    """How many jobs of each queue it runs at once; empty for RQ's own engine, which runs one of any queue."""


def workers(connection: redis.Redis | None = None) -> list[WorkerState]:
    """The workers that are alive, oldest first.

    Raises:
        RedisUnavailable: Redis does not answer.
    """
    client = connection or get_connection()
    names = sorted(as_text(name) for name in cast("set[bytes]", client.smembers(key("workers"))))
    with client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.hgetall(name)
            pipeline.scard(f"{name}:executions")
        answers = pipeline.execute()
    found = []
    for name, raw, running in zip(names, answers[::2], answers[1::2], strict=True):
        if not raw or b"death" in raw:
            continue
        fields = {as_text(field): as_text(value) for field, value in raw.items()}
        found.append(
            WorkerState(
                name=name.removeprefix(key("worker", "")),
                state=fields.get("state", "?"),
                queues=tuple(dict.fromkeys(base_queue(lane) for lane in fields.get("queues", "").split(",") if lane)),
                running=running or bool(fields.get("current_job")),
                since=_moment(fields.get("birth")),
                heartbeat=_moment(fields.get("last_heartbeat")),
                host=fields.get("hostname", "?"),
                pid=int(fields["pid"]) if fields.get("pid", "").isdigit() else None,
                done=int(fields.get("successful_job_count", 0)),
                failed=int(fields.get("failed_job_count", 0)),
                version=fields.get("version", "?"),
                rqjobs_version=fields.get("rqjobs_version"),
                slots=_slots(fields.get("rqjobs_slots", "{}")),
            )
        )
    return sorted(found, key=lambda worker: (worker.since or datetime.max.replace(tzinfo=UTC), worker.name))


def _slots(text: str) -> dict[str, int]:
    try:
        return {str(queue): int(number) for queue, number in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError):  # written by other hands
        return {}


def slots_of(found: Iterable[WorkerState]) -> Counter[str]:
    """How many jobs of each queue these workers run at once, all together."""
    whole: Counter[str] = Counter()
    for worker in found:
        whole.update(worker.slots)
    return whole


def _moment(stamp: str | None) -> datetime | None:
    return datetime.fromisoformat(stamp) if stamp else None
