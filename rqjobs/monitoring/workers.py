"""The living workers: the queues and slots of each, and the number of jobs that it runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

import redis

from rqjobs.broker.connection import client_of
from rqjobs.broker.rq_schema import key, with_zone
from rqjobs.policies import base_queue

_DIGITS = 18  # the most digits of a counter in Redis


@dataclass(frozen=True, kw_only=True)
class WorkerState:
    """One living worker."""

    name: str
    state: str
    """``idle``, ``busy``, ``suspended`` ..."""
    queues: tuple[str, ...]
    """The queues that it serves, without lanes."""
    running: int
    """The number of running jobs."""
    since: datetime | None
    heartbeat: datetime | None
    host: str
    pid: int | None
    done: int
    failed: int
    """The number of failed attempts, including those that were retried."""
    version: str
    """The version of RQ."""
    rqjobs_version: str | None
    """The version of rqjobs; None for ``rq worker``."""
    keys: tuple[str, ...] | None
    """The ids of its keys for decryption (rqjobs.config.encryption); None if it has not recorded them."""
    slots: Mapping[str, int]
    """The most jobs of each queue that it runs at once; empty for ``--engine rq``, which runs one job at a time."""


def workers(connection: redis.Redis | None = None) -> list[WorkerState]:
    """Returns the living workers, oldest first.

    Raises:
        RedisUnavailable: Redis does not answer.
    """
    client = client_of(connection)
    names = sorted(name.decode(errors="replace") for name in cast("set[bytes]", client.smembers(key("workers"))))
    with client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.hgetall(name)
            pipeline.scard(f"{name}:executions")
        answers = pipeline.execute(raise_on_error=False)
    found = []
    for name, raw, running in zip(names, answers[::2], answers[1::2], strict=True):
        if not isinstance(raw, dict) or not raw or b"death" in raw:  # an error, such as a key of the wrong type
            continue
        fields = {field.decode(errors="replace"): value.decode(errors="replace") for field, value in raw.items()}
        found.append(
            WorkerState(
                name=name.removeprefix(key("worker", "")),
                state=fields.get("state", "?"),
                queues=tuple(dict.fromkeys(base_queue(lane) for lane in fields.get("queues", "").split(",") if lane)),
                running=(running if isinstance(running, int) else 0) or bool(fields.get("current_job")),
                since=_moment(fields.get("birth")),
                heartbeat=_moment(fields.get("last_heartbeat")),
                host=fields.get("hostname", "?"),
                pid=_number(fields.get("pid")) or None,
                done=_number(fields.get("successful_job_count")),
                failed=_number(fields.get("failed_job_count")),
                version=fields.get("version", "?"),
                rqjobs_version=fields.get("rqjobs_version"),
                keys=tuple(fields["rqjobs_keys"].split()) if "rqjobs_keys" in fields else None,
                slots=_slots(fields.get("rqjobs_slots", "{}")),
            )
        )
    return sorted(found, key=lambda worker: (worker.since or datetime.max.replace(tzinfo=UTC), worker.name))


def _slots(text: str) -> dict[str, int]:
    try:
        return {str(queue): int(number) for queue, number in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):  # another program has written it
        return {}


def slots_of(found: Iterable[WorkerState]) -> Counter[str]:
    """Returns the total slots of these workers by queue."""
    whole: Counter[str] = Counter()
    for worker in found:
        whole.update(worker.slots)
    return whole


def _moment(stamp: str | None) -> datetime | None:
    try:
        return with_zone(datetime.fromisoformat(stamp)) if stamp else None
    except ValueError:
        return None


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= _DIGITS else 0
