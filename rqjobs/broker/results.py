"""Waits for a job's result."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import redis
from rq.job import Job
from rq.results import Result
from rq.utils import as_text

from rqjobs.broker import keys
from rqjobs.broker.attempts import reason_of
from rqjobs.broker.connection import client_of
from rqjobs.broker.job_writer import is_captured
from rqjobs.broker.rq_schema import SERIALIZER, job_key, results_key
from rqjobs.config.durations import parse_duration
from rqjobs.errors import JobCaptured, JobFailed, JobNotFound, ResultTimeout

_DEAD = ("failed", "stopped", "canceled")
_SLICE = 2.0  # seconds for which a read blocks; shorter than any socket timeout


def wait_for_result(
    job: Job | str, timeout: timedelta | str = timedelta(seconds=30), *, connection: redis.Redis | None = None
) -> Any:
    """Waits until ``job``, or the job with that id, is done, and returns its processor's return value.

    Args:
        job: the return value of an ``enqueue_*`` function, or a job id.
        timeout: the longest wait, 30 s by default.
        connection: another Redis than that of REDIS_URL (or of ``job``).

    Raises:
        JobFailed: the job is dead; the error has the reason.
        ResultTimeout: the job is not done yet. It is not affected.
        JobNotFound: there is no such job; JobCaptured if a test has captured it.
        RedisUnavailable: Redis does not answer.
    """
    job_id = job.id if isinstance(job, Job) else job
    if is_captured(job_id):
        raise JobCaptured(job_id)
    client = client_of(connection or (job.connection if isinstance(job, Job) else None))
    limit = parse_duration(timeout)
    deadline = time.monotonic() + limit.total_seconds()
    # A queue keeps its last 100 done jobs; keys.WAITERS keeps the ones that a process waits for as well.
    client.zadd(keys.WAITERS, {job_id: time.time() + limit.total_seconds() + 5})
    try:
        return _wait(job_id, client, limit, deadline)
    finally:
        client.zrem(keys.WAITERS, job_id)


def look_for_result(job_id: str, client: redis.Redis, limit: timedelta) -> Any:
    """Returns the result without waiting; raises ResultTimeout if the job is not done."""
    return _wait(job_id, client, limit, time.monotonic())


def _wait(job_id: str, client: redis.Redis, limit: timedelta, deadline: float) -> Any:
    while True:
        with client.pipeline() as pipeline:  # atomic: the end of a job is written together with its result
            pipeline.hget(job_key(job_id), "status")
            pipeline.xrevrange(results_key(job_id), count=1)
            status, newest = pipeline.execute()
        state, last, result = as_text(status or b""), "0-0", None
        for entry_id, fields in newest:
            last = as_text(entry_id)
            result = Result.restore(job_id, last, fields, connection=client, serializer=SERIALIZER)
        if result is not None and result.type is Result.Type.SUCCESSFUL:
            return result.return_value
        dead = result is not None and result.type is not Result.Type.RETRIED
        if state in _DEAD or (dead and not state):  # otherwise it was requeued after it died
            raise JobFailed(
                job_id, reason_of(result.exc_string) if result and dead and state != "canceled" else f"it was {state}"
            )
        if not state:
            raise JobNotFound(job_id)
        left = deadline - time.monotonic()
        if left <= 0:
            raise ResultTimeout(job_id, limit, state)
        client.xread({results_key(job_id): last}, block=max(1, int(min(left, _SLICE) * 1000)))
