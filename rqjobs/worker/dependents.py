"""Dependents whose dependencies are met: enqueued in one atomic step (RQ: in two, with a race)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import redis
from rq import Queue

from rqjobs.broker.rq_schema import SERIALIZER, RegisteredJob, run_script
from rqjobs.worker.protocol import read_dependents, release_dependents

PAGE = 500
"""Jobs of a lane that one call to Redis moves: about 10 ms of Redis."""


class ReleasingQueue(Queue):
    """RQ's queue, but for how ready dependents are enqueued.

    RQ watches the whole registry for each job, and leaves a job for its next housekeeping (10 minutes) when another
    worker has changed anything in it meanwhile.
    """

    def enqueue_ready_jobs_by_queue(self, job_ids_by_queue_name: Mapping[str, Sequence[str]]) -> None:
        """Enqueues everything that is ready in these queues; what fails is left to the maintenance."""
        try:
            enqueue_ready(self.connection, list(job_ids_by_queue_name))
        except Exception:
            logging.getLogger("rqjobs").exception("ready dependents could not be enqueued")


def enqueue_ready(client: redis.Redis, lanes: Sequence[str]) -> None:
    """Enqueues the dependents that are ready in ``lanes``."""
    if not lanes:
        return
    more = True
    while more:
        more, limited = read_dependents(run_script("release", client, release_dependents(lanes, PAGE)))
        for lane, job_id in limited:
            queue = Queue(lane, connection=client, serializer=SERIALIZER, job_class=RegisteredJob)
            queue.ready_job_registry.enqueue_jobs([job_id])
