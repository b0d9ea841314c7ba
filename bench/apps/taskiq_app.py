"""taskiq on Redis streams, which acknowledge."""

import asyncio
import os

import marks
from taskiq_redis import RedisStreamBroker

broker = RedisStreamBroker(os.environ["BENCH_REDIS"], consumer_id="0")


@broker.task
async def noop(data: dict) -> None:
    await marks.async_noop(data)


@broker.task
async def sleep(data: dict) -> None:
    await marks.async_sleep(data)


@broker.task
async def post(data: dict) -> None:
    await marks.async_post(data)


TASKS = {"noop": noop, "sleep": sleep, "post": post}
loop = asyncio.new_event_loop()
started = []


async def _send(kind, datas):
    if not started:
        await broker.startup()
        started.append(True)
    for start in range(0, len(datas), 50):
        await asyncio.gather(*[TASKS[kind].kiq(data) for data in datas[start : start + 50]])


def one(kind, data):
    loop.run_until_complete(_send(kind, [data]))


def many(kind, datas):
    loop.run_until_complete(_send(kind, datas))
