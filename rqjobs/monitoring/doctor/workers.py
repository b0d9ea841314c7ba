"""Checks of the workers: whether each queue has one, and all have the same version."""

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
    """Checks that there are workers; RQ's record of a worker expires without heartbeats."""
    if found := living(client):
        yield fine("", f"{len(found)} alive")
    else:
        yield fault("", "no worker runs", "start one: rqjobs worker")


def versions(client: redis.Redis) -> Iterator[Finding]:
    """Checks that all workers, and this command, have the same version."""
    ours = rqjobs_version()
    for worker in living(client):
        if worker.version != VERSION:
            said = f"{worker.name} runs RQ {worker.version}, here is {VERSION}"
            yield fault("", said, "install the same requirements everywhere, and restart the workers")
        elif worker.rqjobs_version not in (None, ours):
            said = f"{worker.name} runs rqjobs {worker.rqjobs_version}, here is {ours}"
            yield fault("", said, "install the same version everywhere, and restart the workers")


def unattended(client: redis.Redis) -> Iterator[Finding]:
    """Checks that a worker listens to each queue."""
    if not living(client):
        return  # reported by the check of workers
    for queue in queue_health(client):
        if not queue.workers:
            said = f"no worker listens to {queue.name} ({queue.waiting:,} waiting)"
            yield fault("", said, f"start a worker for it: rqjobs worker {queue.name}")


def unregistered(client: redis.Redis) -> Iterator[Finding]:
    """Reports jobs in queues that are not registered here: RQJOBS_IMPORT may lack the module."""
    known = set(lanes_in_order())
    for name, waiting in waiting_by_queue(client).items():
        if name not in known and waiting:
            said = f"{waiting:,} waiting in {name!r}, which no imported module registers"
            yield fault("", said, "name its module in RQJOBS_IMPORT, here and for the workers")


def paused(client: redis.Redis) -> Iterator[Finding]:
    """Reports paused queues with waiting jobs, because a pause may have been forgotten."""
    for queue in queue_health(client):
        if queue.paused and queue.waiting:
            yield fault("", f"{queue.name} is paused with {queue.waiting:,} waiting", f"rqjobs resume {queue.name}")
        elif queue.suspended:
            yield fault("", "all workers are suspended", "rq resume")
            return


def overdue(client: redis.Redis) -> Iterator[Finding]:
    """Checks that delayed jobs and retries are moved into their queues when they are due."""
    for queue in queue_health(client):
        if queue.overdue > OVERDUE_LIMIT:
            said = f"a delayed job of {queue.name} is overdue for {spell(queue.overdue)}: no scheduler runs"
            yield fault("", said, f"start rqjobs worker {queue.name}, or rq worker --with-scheduler")
