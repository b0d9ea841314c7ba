"""Waiting for a job's result."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import redis
from rq.job import Job
from rq.results import Result
from rq.utils import as_text

from rqjobs import keys
from rqjobs.connection import get_connection
from rqjobs.durations import parse_duration
from rqjobs.errors import JobFailed, JobNotFound, ResultTimeout
from rqjobs.history import reason_of
from rqjobs.layout import SERIALIZER, job_key, results_key

_SLICE = 2.0  # seconds a read blocks: shorter than any socket timeout, so redis-py does not give up first
_STOPPED = (b"canceled", b"stopped")
_ENDED = (Result.Type.SUCCESSFUL, Result.Type.FAILED, Result.Type.STOPPED, Result.Type.MAX_RETRIES_EXCEEDED)


def wait_for_result(
    job: Job | str, timeout: timedelta | str = timedelta(seconds=30), *, connection: redis.Redis | None = None
) -> Any:
    """Waits until ``job``, or the job of that id, is done, and returns what its processor returned.

    Args:
        job: what an ``enqueue_*`` returned, or its id.
        timeout: how long to wait at most, 30 s by default.
        connection: another Redis than that of REDIS_URL (or of ``job``).

    Raises:
        JobFailed: it is dead; the reason is in the error.
        ResultTimeout: it is not done yet. The job goes on.
        JobNotFound: there is no such job.
    """
    if isinstance(job, Job):
        job_id, client = job.id, connection or job.connection
    else:
        job_id, client = job, connection or get_connection()
    limit = parse_duration(timeout)
    deadline = time.monotonic() + limit.total_seconds()
    # A queue keeps its last 100 done jobs; one that is waited for is kept beside them (keys.WAITERS).
    client.zadd(keys.WAITERS, {job_id: time.time() + limit.total_seconds() + 5})
    try:
        return _wait(job_id, client, limit, deadline)
    finally:
        client.zrem(keys.WAITERS, job_id)


def look_for_result(job_id: str, client: redis.Redis, limit: timedelta) -> Any:
    """One look, for those who wait in their own way; raises ResultTimeout while the job goes on."""
    return _wait(job_id, client, limit, time.monotonic())


def _wait(job_id: str, client: redis.Redis, limit: timedelta, deadline: float) -> Any:
    last, status = "0-0", None
    while True:
        left = deadline - time.monotonic()
        block = max(1, int(min(left, _SLICE) * 1000)) if left > 0 and status not in _STOPPED else None
        for entry_id, fields in _read(client, job_id, last, block):
            last = entry_id.decode()
            result = Result.restore(job_id, last, fields, connection=client, serializer=SERIALIZER)
            if result.type in _ENDED:
                return _value(job_id, result)
        before, status = status, client.hget(job_key(job_id), "status")
        if status is None and not client.exists(results_key(job_id)):
            raise JobNotFound(job_id)
        if before in _STOPPED:  # and no result came together with that
            raise JobFailed(job_id, f"it was {as_text(before)}")
        if left <= 0 and status not in _STOPPED:
            raise ResultTimeout(job_id, limit, as_text(status or "finished"))


def _read(client: redis.Redis, job_id: str, last: str, block: int | None) -> list[tuple[bytes, dict[bytes, bytes]]]:
    answer: Any = client.xread({results_key(job_id): last}, block=block)
    if not answer:
        return []
    streams = answer.values() if isinstance(answer, dict) else [stream[1] for stream in answer]
    entries: list[tuple[bytes, dict[bytes, bytes]]] = []
    for stream in streams:
        entries += stream[0] if isinstance(answer, dict) else stream
    return entries


def _value(job_id: str, result: Result) -> Any:
    if result.type is Result.Type.SUCCESSFUL:
        return result.return_value
    raise JobFailed(job_id, reason_of(result.exc_string))
