"""Enqueues dependents whose dependencies are done, in one atomic step; RQ needs two, with a race between them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import redis
from rq import Queue

from rqjobs.broker.rq_schema import SERIALIZER, RegisteredJob, run_script
from rqjobs.worker.protocol import read_dependents, release_dependents

PAGE = 500
"""The most jobs of a lane that one call to Redis moves: about 10 ms of Redis' time."""


class ReleasingQueue(Queue):
    """RQ's queue, except for the way in which ready dependents are enqueued.

    RQ watches the whole registry for each job; if another worker changes anything in it, RQ leaves the job to its
    next maintenance (every 10 minutes).
    """

    def enqueue_ready_jobs_by_queue(self, job_ids_by_queue_name: Mapping[str, Sequence[str]]) -> None:
        """Enqueues all ready jobs of these queues; after an error the maintenance does it later."""
        try:
            enqueue_ready(self.connection, list(job_ids_by_queue_name))
        except Exception:
            logging.getLogger("rqjobs").exception("ready dependents could not be enqueued")


def enqueue_ready(client: redis.Redis, lanes: Sequence[str]) -> None:
    """Enqueues the ready dependents of ``lanes``."""
    if not lanes:
        return
    more = True
    while more:
        more, limited = read_dependents(run_script("release", client, release_dependents(lanes, PAGE)))
        for lane, job_id in limited:
            queue = Queue(lane, connection=client, serializer=SERIALIZER, job_class=RegisteredJob)
            queue.ready_job_registry.enqueue_jobs([job_id])
