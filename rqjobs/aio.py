"""The calls of rqjobs for coroutines. None of them blocks the event loop: calls to Redis run in a thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast

import redis

from rqjobs.batches.create import Item, enqueue_batch, enqueue_chain
from rqjobs.batches.records import FIRST_LOOK, LAST_LOOK, Batch, BatchProgress, look, timed_out
from rqjobs.broker import keys
from rqjobs.broker.connection import client_of
from rqjobs.broker.job_builder import JobOptions
from rqjobs.broker.job_writer import is_captured
from rqjobs.broker.results import look_for_result
from rqjobs.broker.rq_types import Job
from rqjobs.config.durations import parse_duration
from rqjobs.enqueueing import (
    enqueue,
    enqueue_data_export,
    enqueue_email,
    enqueue_many,
    enqueue_manychat_sync,
    enqueue_qr_analytics,
    enqueue_webhook,
)
from rqjobs.errors import JobCaptured, ResultTimeout
from rqjobs.jobs.base import JobModel
from rqjobs.monitoring.queue_health import QueueHealth, queue_health

if TYPE_CHECKING:
    from rqjobs.jobs import DataExportJob, EmailJob, ManyChatSyncJob, QRAnalyticsJob, WebhookJob

T = TypeVar("T")


async def aenqueue_webhook(job: WebhookJob | Mapping[str, Any], /, **options: Unpack[JobOptions]) -> Job:
    """``enqueue_webhook`` for coroutines."""
    return await _call(enqueue_webhook, job, options)


async def aenqueue_manychat_sync(job: ManyChatSyncJob | Mapping[str, Any], /, **options: Unpack[JobOptions]) -> Job:
    """``enqueue_manychat_sync`` for coroutines."""
    return await _call(enqueue_manychat_sync, job, options)


async def aenqueue_email(job: EmailJob | Mapping[str, Any], /, **options: Unpack[JobOptions]) -> Job:
    """``enqueue_email`` for coroutines."""
    return await _call(enqueue_email, job, options)


async def aenqueue_qr_analytics(job: QRAnalyticsJob | Mapping[str, Any], /, **options: Unpack[JobOptions]) -> Job:
    """``enqueue_qr_analytics`` for coroutines."""
    return await _call(enqueue_qr_analytics, job, options)


async def aenqueue_data_export(job: DataExportJob | Mapping[str, Any], /, **options: Unpack[JobOptions]) -> Job:
    """``enqueue_data_export`` for coroutines."""
    return await _call(enqueue_data_export, job, options)


async def aenqueue(job: JobModel, /, **options: Unpack[JobOptions]) -> Job:
    """``enqueue`` for coroutines."""
    return await _call(enqueue, job, options)


async def aenqueue_many(
    jobs: Iterable[JobModel | tuple[JobModel, JobOptions]], /, **options: Unpack[JobOptions]
) -> list[Job]:
    """``enqueue_many`` for coroutines."""
    return await _call(enqueue_many, jobs, options)


async def aenqueue_batch(jobs: Iterable[Item], /, **options: Any) -> Batch:
    """``enqueue_batch`` for coroutines; it takes the same options. The jobs are read in a thread."""
    return await _call(enqueue_batch, jobs, cast("JobOptions", options))


async def aenqueue_chain(jobs: Iterable[Item], /, **options: Any) -> Batch:
    """``enqueue_chain`` for coroutines; it takes the same options."""
    return await _call(enqueue_chain, jobs, cast("JobOptions", options))


async def await_batch(
    batch: Batch | str,
    timeout: timedelta | str = timedelta(seconds=30),  # noqa: ASYNC109  # as Batch.wait takes it
    *,
    connection: redis.Redis | None = None,
) -> BatchProgress:
    """``Batch.wait`` for coroutines: any number of them can wait at once, without a thread for each.

    Raises:
        BatchFailed: members are dead, and no other can start.
        BatchTimeout: not all members are done. The batch itself is not affected.
        BatchNotFound: the batch was cancelled, or done more than a day ago.
        RedisUnavailable: Redis does not answer.
    """
    batch_id = batch if isinstance(batch, str) else batch.id
    given = connection or (None if isinstance(batch, str) else batch.connection)
    client, limit = await asyncio.to_thread(client_of, given), parse_duration(timeout)
    deadline, pause = time.monotonic() + limit.total_seconds(), FIRST_LOOK
    while (found := await asyncio.to_thread(look, batch_id, client)) is None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise await asyncio.to_thread(timed_out, batch_id, client, limit)
        await asyncio.sleep(min(pause, left))
        pause = min(pause * 1.5, LAST_LOOK)
    return found


async def aqueue_health() -> list[QueueHealth]:
    """``queue_health`` for coroutines."""
    return await asyncio.to_thread(queue_health)


async def await_result(
    job: Job | str,
    timeout: timedelta | str = timedelta(seconds=30),  # noqa: ASYNC109  # as wait_for_result takes it
    *,
    connection: redis.Redis | None = None,
) -> Any:
    """``wait_for_result`` for coroutines: any number of them can wait at once, without a thread for each.

    Raises:
        JobFailed: the job is dead; the error has the reason.
        ResultTimeout: the job is not done yet. It is not affected.
        JobNotFound: there is no such job.
        RedisUnavailable: Redis does not answer.
    """
    job_id = job.id if isinstance(job, Job) else job
    if is_captured(job_id):
        raise JobCaptured(job_id)
    given: redis.Redis | None = connection or getattr(job, "connection", None)
    client = await asyncio.to_thread(client_of, given)
    limit = parse_duration(timeout)
    deadline = time.monotonic() + limit.total_seconds()
    until = time.time() + limit.total_seconds() + 5
    await asyncio.to_thread(client.zadd, keys.WAITERS, {job_id: until})
    pause = FIRST_LOOK
    try:
        while True:
            try:
                return await asyncio.to_thread(look_for_result, job_id, client, limit)
            except ResultTimeout:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 1.5, LAST_LOOK)
    finally:
        await asyncio.to_thread(client.zrem, keys.WAITERS, job_id)


async def _call(function: Callable[..., T], job: object, options: JobOptions) -> T:
    outbox: Any = options.get("outbox")
    if outbox is None:
        return await asyncio.to_thread(function, job, **options)
    if hasattr(outbox, "run_sync"):  # an AsyncSession or AsyncConnection of SQLAlchemy: written in its transaction

        def write(inside: Any) -> T:
            return function(job, **{**options, "outbox": inside})

        written: T = await outbox.run_sync(write)
        return written
    return function(job, **options)  # in this thread, to which the connection belongs
