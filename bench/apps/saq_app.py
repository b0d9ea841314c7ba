"""SAQ."""

import asyncio
import os

import marks
from redis.asyncio import Redis
from saq import Job
from saq.queue.redis import RedisQueue

try:
    import uvloop
except ImportError:
    pass
else:
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

queue = RedisQueue(Redis.from_url(os.environ["BENCH_REDIS"]))


async def noop(ctx, *, data):
    await marks.async_noop(data)


async def sleep(ctx, *, data):
    await marks.async_sleep(data)


async def post(ctx, *, data):
    await marks.async_post(data)


settings = {"queue": queue, "functions": [noop, sleep, post], "concurrency": int(os.environ.get("BENCH_SLOTS", "50"))}
loop = asyncio.new_event_loop()


def one(kind, data):
    loop.run_until_complete(queue.enqueue(Job(kind, kwargs={"data": data})))


def many(kind, datas):
    async def all_of_them():
        for start in range(0, len(datas), 20):  # as many as SAQ allows at a time
            batch = datas[start : start + 20]
            await asyncio.gather(*[queue.enqueue(Job(kind, kwargs={"data": data})) for data in batch])

    loop.run_until_complete(all_of_them())
