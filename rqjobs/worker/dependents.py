"""Dependents whose dependencies are met: enqueued in one atomic step (RQ: in two, with a race)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import redis
from rq import Queue
from rq.utils import as_text

from rqjobs.broker.rq_schema import SERIALIZER, RegisteredJob, run_script, timestamp

PAGE = 500
"""Jobs of a lane that one call to Redis moves: about 10 ms of Redis."""


class ReleasingQueue(Queue):
    """RQ's queue, but for how ready dependents are enqueued.

    RQ watches the whole registry for each job, and leaves a job for its next housekeeping (10 minutes) when another
    worker has changed anything in it meanwhile.
    """

    def enqueue_ready_jobs_by_queue(self, job_ids_by_queue_name: Mapping[str, Sequence[str]]) -> None:
        """Enqueues everything that is ready in these queues; what fails is left to the keeper's next round."""
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
        words = [timestamp(), Queue.DEFAULT_TIMEOUT, PAGE, *lanes]
        again, *limited = run_script("release", client, words)
        for lane, job_id in zip(limited[::2], limited[1::2], strict=True):
            queue = Queue(as_text(lane), connection=client, serializer=SERIALIZER, job_class=RegisteredJob)
            queue.ready_job_registry.enqueue_jobs([as_text(job_id)])
        more = again == b"1"
