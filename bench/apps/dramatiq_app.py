"""Dramatiq."""

import os

import dramatiq
import marks
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url=os.environ["BENCH_REDIS"]))
TASKS = {name: dramatiq.actor(getattr(marks, name)) for name in ("noop", "sleep", "post")}


def one(kind, data):
    TASKS[kind].send(data)


def many(kind, datas):
    for data in datas:
        one(kind, data)
