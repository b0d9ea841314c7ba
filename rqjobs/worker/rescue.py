"""Rescues the jobs of dead workers: the maintenance does by their leases, a watcher for the worker that it watched."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import redis

from rqjobs.broker.rq_schema import run_script
from rqjobs.config.logs import event
from rqjobs.config.settings import Settings
from rqjobs.worker import protocol
from rqjobs.worker.claimed_job import MAX_DEATHS

TRIED_AGAIN = "WorkerDied: the worker that ran this attempt died, or was cut off for longer than its lease"
USED_UP = "WorkerDied: the worker that ran the last attempt died, or was cut off for longer than its lease"
POISON = f"WorkerDied: {MAX_DEATHS} workers died while they ran this job; it may be the cause"

PAGE = 500
"""Jobs of a lane that one call to Redis rescues or renews: about 10 ms of Redis. A worker may hold thousands."""


def rescue(
    client: redis.Redis, lanes: Sequence[str], settings: Settings, *, dead: str = ""
) -> tuple[list[tuple[str, str, str]], set[str]]:
    """Rescues the jobs of dead workers: they go back to their queues, or become dead.

    Args:
        client: a connection.
        lanes: the lanes to search.
        settings: how many dead jobs are kept.
        dead: the name of a worker that is known to be dead; without it, jobs whose lease has expired are rescued.

    Returns:
        Lane, job and execution of the jobs that RQ's own methods must rescue within 30 s; and the keys of these
        lanes that are of another type than RQ's.
    """
    errors = (TRIED_AGAIN, USED_UP, POISON)
    while True:
        words = protocol.rescue(lanes, settings, errors=errors, dead=dead, page=PAGE)
        found = protocol.read_rescued(run_script("recover", client, words))
        for job_id, worker, status in found.jobs:
            level = logging.WARNING if status == "queued" else logging.ERROR
            event(level, "job of a dead worker", id=job_id, worker=worker, now=status)
        if found.rq_compat or len(found.jobs) < PAGE:  # the caller has 30 s for the RQ compatibility path
            return found.rq_compat, found.wrong_types
