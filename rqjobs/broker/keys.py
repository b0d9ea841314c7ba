"""The names of rqjobs' own keys in Redis. RQ's keys are in rq_schema.py."""

from __future__ import annotations

import os

PREFIX = os.environ.get("RQ_KEY_PREFIX", "rq") + "jobs"
"""``rqjobs``. RQ's prefix setting changes this prefix too, so that both can be in one Redis Cluster slot."""

PAUSED = f"{PREFIX}:paused"
"""A set: the names of paused queues."""

HOLDS = f"{PREFIX}:holds"
"""A hash: the unavailable dependencies, by the queue, or the part of a queue, that is held for them (holds.lua)."""


def held_jobs(queue: str, scope: str) -> str:
    """A set: the delayed jobs of the part ``scope`` of ``queue`` that is held, each as ``lane id``."""
    return f"{PREFIX}:held:{queue}|{scope}"


def totals(queue: str) -> str:
    """A hash: the totals ``completed``, ``failed`` and ``retried`` of ``queue``."""
    return f"{PREFIX}:totals:{queue}"


def running(queue: str, worker: str) -> str:
    """A string: the running executions of ``queue`` and ``worker`` whose jobs have lost a worker before."""
    return f"{PREFIX}:running:{queue}:{worker}"


def ran(worker: str) -> str:
    """A hash: the ``executions`` that ran in a worker when it died; ``why``: their error, if the worker was frozen."""
    return f"{PREFIX}:ran:{worker}"


def dead_fingerprints(lane: str) -> str:
    """A sorted set: the dead letters of ``lane`` by fingerprint (rqjobs.dead_letters.index)."""
    return f"{PREFIX}:dead:groups:{lane}"


def old_dead_fingerprints(lane: str) -> str:
    """The key of the version before for :func:`dead_fingerprints`, with fingerprints of another form; it is deleted."""
    return f"{PREFIX}:dead:causes:{lane}"


def dead_reasons(lane: str) -> str:
    """A sorted set: the dead letters of ``lane`` by their last error, as a number (rqjobs.dead_letters.index)."""
    return f"{PREFIX}:dead:reasons:{lane}"


def dead_texts(lane: str) -> str:
    """A hash: the last errors of dead letters in lower case, by their numbers (rqjobs.dead_letters.index)."""
    return f"{PREFIX}:dead:texts:{lane}"


WAITERS = f"{PREFIX}:waiters"
"""A sorted set: the ids of jobs whose results a process waits for, by the time at which the wait ends."""


METRICS = f"{PREFIX}:metrics"
"""A hash: the counters and histogram buckets of all queues (rqjobs.monitoring.metrics)."""


def minute(number: int) -> str:
    """A hash like METRICS for one minute (Unix time // 60); kept for a little over an hour."""
    return f"{PREFIX}:minute:{number}"


def session(digest: str) -> str:
    """A string (JSON): one session of the dashboard, by the SHA-256 of its id; it expires with the session."""
    return f"{PREFIX}:session:{digest}"


BULK_REQUEUES = f"{PREFIX}:repairs"
"""A sorted set: the ids of the last bulk requeues, by their start."""


def bulk_requeue(bulk_id: str) -> str:
    """A hash: one bulk requeue of a failure group, with its progress."""
    return f"{PREFIX}:repair:{bulk_id}"


OUTBOX = f"{PREFIX}:outbox"
"""A sorted set: the tokens of outbox rows that were written to Redis and may still be in their table, by time."""


def email_send_record(job_id: str) -> str:
    """A string (JSON): the send record of the mail of job ``job_id``."""
    return f"{PREFIX}:email:{job_id}"


def breaker_parked(destination: str) -> str:
    """A sorted set: the parked deliveries of a webhook destination, by the time of enqueueing."""
    return f"{PREFIX}:webhooks:line:{destination}"


PARKED = f"{PREFIX}:webhooks:parked"
"""A sorted set: the webhook destinations with an open breaker, by the time at which it becomes half-open."""

DESTINATIONS = f"{PREFIX}:webhooks:destinations"
"""A sorted set: the webhook destinations with a breaker state, by the time of its latest change."""


SCHEDULES_DUE = f"{PREFIX}:schedules:due"
"""A sorted set: the schedules of recurring jobs by their next tick in Unix seconds; ``inf``: paused or ended."""


def schedule(name: str) -> str:
    """A hash: a schedule, and the job that each of its ticks enqueues."""
    return f"{PREFIX}:schedules:one:{name}"


def schedule_ticks(name: str) -> str:
    """A list: the last 20 ticks of a schedule as JSON, newest first."""
    return f"{PREFIX}:schedules:ticks:{name}"


BATCHES = f"{PREFIX}:batches"
"""A sorted set: the batches that are not done, by their creation time."""

BATCHES_DONE = f"{PREFIX}:batches:done"
"""A sorted set: the newest 1,000 done batches by the time at which they were done; kept for a day."""

BATCHES_OPENING = f"{PREFIX}:batches:opening"
"""A sorted set: the batches whose members have not all arrived, by the time of the last arrival."""


def batch(batch_id: str) -> str:
    """A hash: a batch and its counts (batch.lua).

    ``:open`` and ``:dead`` after it are sets of the members that have not ended, and of the dead ones; ``:next`` is a
    list of the jobs of a chain that have not started.
    """
    return f"{PREFIX}:batch:{batch_id}"


GROUP_LANES = f"{PREFIX}:groups:lanes"
"""A set: the lanes with waiting jobs of groups."""

GROUP_PLACES = f"{PREFIX}:groups:places"
"""A number: the last place given to a job of a group."""


def group_waiting(lane: str) -> str:
    """A sorted set: the waiting jobs of groups, as ``group``, ``place`` and ``id`` with a line feed between them."""
    return f"{PREFIX}:groups:waiting:{lane}"


def group_turns(lane: str) -> str:
    """A sorted set: the groups that may start a job of ``lane``, in the order of their turns."""
    return f"{PREFIX}:groups:turns:{lane}"


def group_paced(lane: str) -> str:
    """A sorted set: the groups that wait for their rate limit, by the time at which it admits a job."""
    return f"{PREFIX}:groups:paced:{lane}"


def group_slots(queue: str) -> str:
    """A sorted set: the jobs with a slot of their group, as ``group`` and ``id`` with a line feed between them."""
    return f"{PREFIX}:groups:slots:{queue}"


def group_rates(queue: str) -> str:
    """A sorted set: the groups by the time at which their rate limit admits a full burst again."""
    return f"{PREFIX}:groups:rates:{queue}"


ALERT_TURN = f"{PREFIX}:alerts:turn"
"""A string with an expiry, set by the process that checks for alerts, so that no other one does at the same time."""

ALERT_SEEN = f"{PREFIX}:alerts:seen"
"""A hash: for each queue the number of dead jobs that an alert has reported."""

ALERT_DROPPED = f"{PREFIX}:alerts:dropped"
"""A hash: for each queue the number of dropped dead letters that an alert has reported."""

ALERT_ILL = f"{PREFIX}:alerts:ill"
"""A hash: the queues that were unhealthy at the last check, each ``seen``, or ``told`` after an alert was sent."""


def alert(kind: str, subject: str) -> str:
    """A string with an expiry, during which no second alert of this kind and subject is sent."""
    return f"{PREFIX}:alerts:{kind}:{subject}"
