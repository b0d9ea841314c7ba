"""Huey."""

import os

import marks
from huey import RedisHuey

huey = RedisHuey("bench", url=os.environ["BENCH_REDIS"])
TASKS = {"noop": huey.task(name="noop")(marks.noop), "sleep": huey.task(name="sleep")(marks.sleep)}


def one(kind, data):
    TASKS[kind](data)


def many(kind, datas):
    for data in datas:
        one(kind, data)
