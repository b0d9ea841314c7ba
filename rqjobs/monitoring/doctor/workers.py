"""The workers: is each queue attended, by workers that live and are of one version?"""

from __future__ import annotations

from collections.abc import Iterator

import redis

from rqjobs.broker.rq_schema import rqjobs_version
from rqjobs.broker.rq_types import VERSION, waiting_by_queue
from rqjobs.config.durations import spell
from rqjobs.monitoring.doctor.finding import Finding, fault, fine
from rqjobs.monitoring.queue_health import OVERDUE_LIMIT, queue_health
from rqjobs.monitoring.workers import workers as living
from rqjobs.policies import lanes_in_order


def alive(client: redis.Redis) -> Iterator[Finding]:
    """Whether there are workers; RQ's record of a worker expires without heartbeats."""
    if found := living(client):
        yield fine("", f"{len(found)} alive")
    else:
        yield fault("", "no worker runs", "start one: rqjobs worker")


def versions(client: redis.Redis) -> Iterator[Finding]:
    """Whether all workers, and this command, are of one version."""
    ours = rqjobs_version()
    for worker in living(client):
        if worker.version != VERSION:
            said = f"{worker.name} runs RQ {worker.version}, here is {VERSION}"
            yield fault("", said, "install the same requirements everywhere, and restart the workers")
        elif worker.rqjobs_version not in (None, ours):
            said = f"{worker.name} runs rqjobs {worker.rqjobs_version}, here is {ours}"
            yield fault("", said, "install the same version everywhere, and restart the workers")


def unattended(client: redis.Redis) -> Iterator[Finding]:
    """Whether a worker listens to each queue."""
    if not living(client):
        return  # the check of workers has reported it
    for queue in queue_health(client):
        if not queue.workers:
            said = f"no worker listens to {queue.name} ({queue.waiting:,} waiting)"
            yield fault("", said, f"start a worker for it: rqjobs worker {queue.name}")


def unregistered(client: redis.Redis) -> Iterator[Finding]:
    """Whether jobs wait in a queue that is not registered here: RQJOBS_IMPORT lacks the module of an own one."""
    known = set(lanes_in_order())
    for name, waiting in waiting_by_queue(client).items():
        if name not in known and waiting:
            said = f"{waiting:,} waiting in {name!r}, which no imported module registers"
            yield fault("", said, "name its module in RQJOBS_IMPORT, here and for the workers")


def paused(client: redis.Redis) -> Iterator[Finding]:
    """Whether jobs wait behind a pause that was forgotten."""
    for queue in queue_health(client):
        if queue.paused and queue.waiting:
            yield fault("", f"{queue.name} is paused with {queue.waiting:,} waiting", f"rqjobs resume {queue.name}")
        elif queue.suspended:
            yield fault("", "all workers are suspended", "rq resume")
            return


def overdue(client: redis.Redis) -> Iterator[Finding]:
    """Whether delayed jobs and retries come back when their time has come."""
    for queue in queue_health(client):
        if queue.overdue > OVERDUE_LIMIT:
            said = f"a delayed job of {queue.name} is overdue for {spell(queue.overdue)}: no scheduler runs"
            yield fault("", said, f"start rqjobs worker {queue.name}, or rq worker --with-scheduler")
