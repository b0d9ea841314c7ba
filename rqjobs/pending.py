"""Jobs that wait: run sooner, or deleted, by hand."""

from __future__ import annotations

import time

import redis

from rqjobs.connection import get_connection
from rqjobs.layout import fetch_job, key, run_script


def run_now(job_id: str, connection: redis.Redis | None = None) -> bool:
    """Makes a delayed job due now; False if it is not delayed (any more).

    Rate limits and open circuit breakers stay in force: what they hold back, they hold back again.

    Raises:
        JobNotFound: there is no such job.
    """
    client = connection or get_connection()
    job = fetch_job(job_id, client)
    return bool(client.zadd(key("scheduled", job.origin), {job_id: time.time()}, xx=True, ch=True))


def delete(job_id: str, connection: redis.Redis | None = None) -> bool:
    """Deletes a waiting or delayed job for good; False if it is neither (any more).

    Raises:
        JobNotFound: there is no such job.
    """
    client = connection or get_connection()
    job = fetch_job(job_id, client)
    return bool(run_script("purge", client, ["waiting", job_id, job.origin]))
