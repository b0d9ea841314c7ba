"""Huey."""

import os

import marks
from huey import RedisHuey

huey = RedisHuey("bench", url=os.environ["BENCH_REDIS"])
TASKS = {name: huey.task(name=name)(getattr(marks, name)) for name in ("noop", "sleep", "post")}


def one(kind, data):
    TASKS[kind](data)


def many(kind, datas):
    for data in datas:
        one(kind, data)
