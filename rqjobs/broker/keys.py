"""The names of our own keys in Redis. RQ's keys come from RQ (see layout.py)."""

from __future__ import annotations

import os

PREFIX = os.environ.get("RQ_KEY_PREFIX", "rq") + "jobs"
"""``rqjobs``; RQ's own prefix setting changes ours with it, so both stay in one Redis Cluster slot."""

PAUSED = f"{PREFIX}:paused"
"""A set: the names of paused queues."""

HOLDS = f"{PREFIX}:holds"
"""A hash: the dependencies that are away, by the queue, or the part of a queue, that waits for them (holds.lua)."""


def held_jobs(queue: str, scope: str) -> str:
    """A set: the delayed jobs, each as ``lane id``, of the part ``scope`` of ``queue`` whose dependency is away."""
    return f"{PREFIX}:held:{queue}|{scope}"


def totals(queue: str) -> str:
    """A hash: ``completed``, ``failed``, ``retried`` of ``queue`` since it exists."""
    return f"{PREFIX}:totals:{queue}"


def running(queue: str, worker: str) -> str:
    """A string: of all executions of ``queue`` and ``worker`` whose jobs have had a worker die under them, those that
    run now.
    """  # noqa: D205
    return f"{PREFIX}:running:{queue}:{worker}"


def ran(worker: str) -> str:
    """A hash: ``executions`` that ran in a worker when it died; ``why``, their error, if it was frozen."""
    return f"{PREFIX}:ran:{worker}"


def dead_fingerprints(lane: str) -> str:
    """A sorted set: the dead letters of ``lane`` by fingerprint (rqjobs.dead_letters.index)."""
    return f"{PREFIX}:dead:groups:{lane}"


def old_dead_fingerprints(lane: str) -> str:
    """The key that earlier versions used for :func:`dead_fingerprints`, with fingerprints of another form."""
    return f"{PREFIX}:dead:causes:{lane}"


def dead_reasons(lane: str) -> str:
    """A sorted set: the dead letters of ``lane`` by their last error, as a number (rqjobs.dead_letters.index)."""
    return f"{PREFIX}:dead:reasons:{lane}"


def dead_texts(lane: str) -> str:
    """A hash: those errors by their numbers, in small letters (rqjobs.dead_letters.index)."""
    return f"{PREFIX}:dead:texts:{lane}"


WAITERS = f"{PREFIX}:waiters"
"""A sorted set: the ids of jobs for whose results a process waits, by the time at which the waiting ends."""


METRICS = f"{PREFIX}:metrics"
"""A hash: counters and histogram buckets of all queues since they exist (rqjobs.monitoring.metrics)."""


def minute(number: int) -> str:
    """A hash like METRICS, of one minute (Unix time // 60) only; kept for a little over an hour."""
    return f"{PREFIX}:minute:{number}"


def session(digest: str) -> str:
    """A string, JSON: one sign-in at the dashboard, by the SHA-256 of its id; it expires with the sign-in."""
    return f"{PREFIX}:session:{digest}"


BULK_REQUEUES = f"{PREFIX}:repairs"
"""A sorted set: the ids of the last bulk requeues, by their start."""


def bulk_requeue(bulk_id: str) -> str:
    """A hash: one bulk requeue of a failure group, with its progress."""
    return f"{PREFIX}:repair:{bulk_id}"


OUTBOX = f"{PREFIX}:outbox"
"""A sorted set: the tokens of outbox rows that are in Redis and perhaps still in their table, by the time of it."""


def email_send_record(job_id: str) -> str:
    """A string, JSON: what is known of the way out of the mail of job ``job_id``."""
    return f"{PREFIX}:email:{job_id}"


def breaker_parked(destination: str) -> str:
    """A sorted set: the deliveries that are parked for a webhook destination, by when they were enqueued."""
    return f"{PREFIX}:webhooks:line:{destination}"


PARKED = f"{PREFIX}:webhooks:parked"
"""A sorted set: the webhook destinations whose breaker is open, by the time until which they are parked."""

DESTINATIONS = f"{PREFIX}:webhooks:destinations"
"""A sorted set: the webhook destinations whose breaker has a state, by the time of its latest change."""


SCHEDULES_DUE = f"{PREFIX}:schedules:due"
"""A sorted set: the schedules of recurring jobs by their next tick in Unix seconds; ``inf``: paused or ended."""


def schedule(name: str) -> str:
    """A hash: a schedule and the job that each of its ticks enqueues."""
    return f"{PREFIX}:schedules:one:{name}"


def schedule_ticks(name: str) -> str:
    """A list: the last 20 ticks of a schedule as JSON, newest first."""
    return f"{PREFIX}:schedules:ticks:{name}"


ALERT_TURN = f"{PREFIX}:alerts:turn"
"""A string with an expiry: set by the process that checked last for alerts."""

ALERT_SEEN = f"{PREFIX}:alerts:seen"
"""A hash: for each queue the number of dead jobs that an alert has reported."""

ALERT_DROPPED = f"{PREFIX}:alerts:dropped"
"""A hash: how many dropped dead letters of each queue an alert has named."""

ALERT_ILL = f"{PREFIX}:alerts:ill"
"""A hash: for each queue that was unhealthy at the last check ``seen``, or ``told`` once an alert was sent."""


def alert(kind: str, subject: str) -> str:
    """Set for as long as no other alert of this kind and subject goes out."""
    return f"{PREFIX}:alerts:{kind}:{subject}"
