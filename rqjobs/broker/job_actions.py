"""Actions of users on single jobs that are not dead: run a job now, stop it, delete it."""

from __future__ import annotations

import redis
from rq.command import send_command
from rq.job import JobStatus

from rqjobs.broker import keys
from rqjobs.broker.connection import client_of
from rqjobs.broker.rq_schema import fetch_job, run_script


def run_now(job_id: str, connection: redis.Redis | None = None) -> bool:
    """Makes a delayed job due now, or puts a lost job back into its queue; returns False if it is neither.

    A lost job has the status of a waiting or running one, but is in no list. Rate limits and open circuit breakers
    still apply, and may delay the job again.

    Raises:
        JobNotFound: there is no such job.
    """
    client = client_of(connection)
    job = fetch_job(job_id, client)
    return bool(run_script("run_now", client, [job_id, job.origin]))


def stop(job_id: str, connection: redis.Redis | None = None) -> bool:
    """Sends the worker of a running job the command to stop it; returns False if the job is not running.

    The stopped job is dead.

    Raises:
        JobNotFound: there is no such job.
    """
    client = client_of(connection)
    job = fetch_job(job_id, client)
    if job.get_status(refresh=False) != JobStatus.STARTED or not job.worker_name:
        return False
    send_command(client, job.worker_name, "stop-job", job_id=job_id)
    return True


def delete(job_id: str, connection: redis.Redis | None = None) -> bool:
    """Deletes a waiting or delayed job; returns False if it is in another state.

    Raises:
        JobNotFound: there is no such job.
    """
    client = client_of(connection)
    fetch_job(job_id, client)
    return bool(run_script("purge", client, [keys.PREFIX, "waiting", job_id]))
