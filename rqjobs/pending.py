"""Jobs that wait: run sooner, or deleted, by hand."""

from __future__ import annotations

import redis

from rqjobs.connection import get_connection
from rqjobs.layout import fetch_job, run_script


def run_now(job_id: str, connection: redis.Redis | None = None) -> bool:
    """Makes a delayed job due now, or puts a lost one back into its queue; False if it is neither.

    A lost job says that it waits or runs, and is in no list. Rate limits and open circuit breakers stay in force: what
    they hold back, they hold back again.

    Raises:
        JobNotFound: there is no such job.
    """
    client = connection or get_connection()
    job = fetch_job(job_id, client)
    return bool(run_script("run_now", client, [job_id, job.origin]))


def delete(job_id: str, connection: redis.Redis | None = None) -> bool:
    """Deletes a waiting or delayed job for good; False if it is neither (any more).

    Raises:
        JobNotFound: there is no such job.
    """
    client = connection or get_connection()
    job = fetch_job(job_id, client)
    return bool(run_script("purge", client, ["waiting", job_id, job.origin]))
