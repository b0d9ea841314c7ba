"""Rescues the jobs of dead workers: the maintenance by expired leases, a watcher by the name of its worker."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

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
"""The most jobs of a lane that one call to Redis rescues or renews: about 10 ms of Redis' time."""


def rescue(
    client: redis.Redis,
    lanes: Sequence[str],
    settings: Settings,
    *,
    dead: str = "",
    on_death: Callable[[str], None] | None = None,
) -> tuple[list[tuple[str, str, str]], set[str]]:
    """Rescues the jobs of dead workers: puts them back into their queues, or makes them dead.

    Args:
        client: a connection.
        lanes: the lanes to search.
        settings: the settings with the number of kept dead jobs.
        dead: the name of a dead worker; without it, all jobs with expired leases are rescued.
        on_death: called with the id of each job that is dead from now on.

    Returns:
        Lane, job and execution of the jobs that RQ's own methods must rescue within 30 s; and the keys of these
        lanes that have the wrong type.
    """
    errors = (TRIED_AGAIN, USED_UP, POISON)
    while True:
        words = protocol.rescue(lanes, settings, errors=errors, dead=dead, page=PAGE)
        found = protocol.read_rescued(run_script("recover", client, words))
        for job_id, worker, status in found.jobs:
            level = logging.WARNING if status == "queued" else logging.ERROR
            event(level, "job of a dead worker", id=job_id, worker=worker, now=status)
            if status == "failed" and on_death is not None:
                on_death(job_id)
        if found.rq_compat or len(found.jobs) < PAGE:  # return them first: the caller has 30 s for them
            return found.rq_compat, found.wrong_types
