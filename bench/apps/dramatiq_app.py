"""Dramatiq."""

import os

import dramatiq
import marks
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url=os.environ["BENCH_REDIS"]))
TASKS = {"noop": dramatiq.actor(marks.noop), "sleep": dramatiq.actor(marks.sleep)}


def one(kind, data):
    TASKS[kind].send(data)


def many(kind, datas):
    for data in datas:
        one(kind, data)
