"""What people do to single jobs that are not dead: run them sooner, stop them, delete them."""

from __future__ import annotations

import redis
from rq.command import send_command
from rq.job import JobStatus

from rqjobs.broker import keys
from rqjobs.broker.connection import client_of
from rqjobs.broker.rq_schema import fetch_job, run_script


def run_now(job_id: str, connection: redis.Redis | None = None) -> bool:
    """Makes a delayed job due now, or puts a lost one back into its queue; False if it is neither.

    A lost job has the status of a waiting or running one, and is in no list. Rate limits and
    open circuit breakers stay in force: they may delay it again.

    Raises:
        JobNotFound: there is no such job.
    """
    client = client_of(connection)
    job = fetch_job(job_id, client)
    return bool(run_script("run_now", client, [job_id, job.origin]))


def stop(job_id: str, connection: redis.Redis | None = None) -> bool:
    """Sends the worker of a running job the command to stop it: it becomes a dead letter. False if it does not run.

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
    """Deletes a waiting or delayed job for good; False if it is neither (any more).

    Raises:
        JobNotFound: there is no such job.
    """
    client = client_of(connection)
    fetch_job(job_id, client)
    return bool(run_script("purge", client, [keys.PREFIX, "waiting", job_id]))
