"""RQ itself, with its JSON serializer."""

import os

import redis
from rq import Queue
from rq.serializers import JSONSerializer

queue = Queue("bench", connection=redis.Redis.from_url(os.environ["BENCH_REDIS"]), serializer=JSONSerializer)
NAMES = {"noop": "bench.apps.marks.noop", "sleep": "bench.apps.marks.sleep", "post": "bench.apps.marks.post"}


def one(kind, data):
    queue.enqueue(NAMES[kind], data)


def many(kind, datas):
    queue.enqueue_many([Queue.prepare_data(NAMES[kind], (data,)) for data in datas])
