"""RQ's own worker over the queue ``bench``: ``rq_worker.py Worker|SimpleWorker``."""

import sys

import rq
from rq.serializers import JSONSerializer

from bench.apps import marks  # noqa: F401  # imported before the first fork
from bench.apps.rq_app import queue

kind = getattr(rq, sys.argv[1])
kind([queue], connection=queue.connection, serializer=JSONSerializer).work(logging_level="WARNING")
