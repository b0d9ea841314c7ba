"""The calls for coroutines: the same outcomes, and an event loop that never stands still."""

import asyncio
import time

import pytest
from rq import Queue

from rqjobs import (
    DuplicateJob,
    InvalidJob,
    QRAnalyticsJob,
    ResultTimeout,
    aenqueue,
    aenqueue_data_export,
    aenqueue_email,
    aenqueue_many,
    aenqueue_manychat_sync,
    aenqueue_qr_analytics,
    aenqueue_webhook,
    aqueue_health,
    await_result,
)
from tests.support.ownjobs import greet

pytestmark = pytest.mark.asyncio

HOOK = {"webhookId": "w", "event": "e", "url": "https://example.com", "payload": {}}
SCAN = QRAnalyticsJob(qr_code_id="q", event="scan", data={})


async def test_each_kind(redis):
    jobs = [
        await aenqueue_webhook(HOOK),
        await aenqueue_manychat_sync({"type": "tag", "action": "create", "toolId": "t", "data": {"name": "vip"}}),
        await aenqueue_email({"to": "ada@example.com", "subject": "s", "template": "welcome", "data": {}}),
        await aenqueue_qr_analytics(SCAN),
        await aenqueue_data_export({"userId": "u", "exportType": "csv", "dataType": "contacts"}),
    ]
    assert [job.origin for job in jobs] == ["webhooks", "manychat-sync", "email", "qr-analytics", "data-export"]
    assert (await aenqueue(SCAN)).origin == "qr-analytics"
    assert len(await aenqueue_many([SCAN, SCAN])) == 2
    assert (await greet.aenqueue({"name": "Ada"})).origin == "greet"
    assert (await aqueue_health())[3].waiting == 4
    assert Queue("webhooks", connection=redis).count == 1


async def test_errors_are_the_same(redis):
    with pytest.raises(InvalidJob):
        await aenqueue_webhook({})
    await aenqueue_webhook(HOOK, job_id="a")
    with pytest.raises(DuplicateJob):
        await aenqueue_webhook(HOOK, job_id="a")


async def test_the_event_loop_is_not_blocked_while_redis_is_slow(redis):
    await aenqueue(SCAN)  # connected, scripts known
    redis.execute_command("CLIENT", "PAUSE", 30_000, "WRITE")
    task = asyncio.create_task(aenqueue(SCAN))
    for _ in range(20):
        await asyncio.sleep(0.01)
        assert not task.done()
    redis.execute_command("CLIENT", "UNPAUSE")
    await task


async def test_a_hundred_wait_at_once_and_get_their_results(workers, redis):
    jobs = await asyncio.gather(*(greet.aenqueue({"name": str(i)}) for i in range(100)))
    waiting = asyncio.gather(*(await_result(job, "60s") for job in jobs))
    workers.start("greet", RQJOBS_IMPORT="tests.support.ownjobs")
    assert await waiting == [f"hello {i}" for i in range(100)]


async def test_waiting_ends_in_time(redis):
    job = await aenqueue(SCAN)
    started = time.monotonic()
    with pytest.raises(ResultTimeout):
        await await_result(job, "0.3s")
    assert 0.3 <= time.monotonic() - started < 30
    assert redis.zcard("rqjobs:waiters") == 0
