"""Celery, without results."""

import os

import marks
from celery import Celery

app = Celery("bench", broker=os.environ["BENCH_REDIS"].replace("unix://", "redis+socket://"))
app.conf.update(task_ignore_result=True, task_acks_late=True, worker_prefetch_multiplier=4)
TASKS = {name: app.task(name=name)(getattr(marks, name)) for name in ("noop", "sleep", "post")}


def one(kind, data):
    TASKS[kind].delay(data)


def many(kind, datas):
    for data in datas:
        one(kind, data)
