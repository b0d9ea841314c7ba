"""Builds a job from its model and options, in the form that Redis and the outbox store."""

from __future__ import annotations

import base64
import difflib
import hashlib
import json
import os
import threading
import time
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache, lru_cache
from typing import Any, TypedDict, cast

import redis
from rq.job import Job, JobStatus

from rqjobs.attempt import JOB_ID
from rqjobs.broker.job_writer import DESTINATION, GROUP, ROW_AGAIN, ROW_DELAY, Entry, Kind, later
from rqjobs.broker.rq_schema import SERIALIZER, encode_data, timestamp
from rqjobs.broker.tracing import FIELD, context_to_carry
from rqjobs.config.backoff import MAX_ATTEMPTS, Backoff, choose_attempts, parse_backoff
from rqjobs.config.durations import parse_explicit_duration
from rqjobs.config.settings import get_settings
from rqjobs.errors import InvalidJob
from rqjobs.jobs.at_rest import encrypt_job
from rqjobs.jobs.base import JobModel, encode_json
from rqjobs.policies import PRIORITIES, Priority, QueuePolicy, get_policy, lane, load

_MAX_DELAY = timedelta(days=3660)

MAX_GROUP = 200
"""The most characters of a group's name."""

_id_lock = threading.Lock()
_last_id = 0

_usual: dict[tuple[str, Priority, bool, bool], tuple[QueuePolicy, Kind]] = {}
"""Cached kinds of jobs without options of their own, by queue, priority, ``unique`` and whether they are delayed."""


class JobOptions(TypedDict, total=False):
    """The options of an enqueue call, apart from the job's own fields. None means the value of the queue's policy."""

    priority: Priority
    """``high``, ``normal`` (the default) or ``low``: the lane."""
    attempts: int | None
    """The most runs of the job, 1 to 100."""
    backoff: Backoff | str | None
    """The wait before each retry, such as ``exponential("5s")`` or ``"fixed:10s"``."""
    delay: timedelta | str | None
    """The wait before the first run: a timedelta, or text with a unit such as ``"1h"``; at most ten years.
    A number without a unit is refused: it might be seconds, or milliseconds as in Bull.
    """
    at: datetime | None
    """The time of the first run, with a time zone, by Redis' clock. Not together with ``delay``."""
    group: str | None
    """The group of the job, 1 to 200 characters, such as a customer's id. The groups of a queue take turns; the
    queue's policy limits how many jobs of a group run at once, and how many start in a second.
    """
    debounce: timedelta | str | None
    """The wait before the run, which each later call with the same id restarts, ten times the wait at most in all; the
    job runs with the payload of the last call. Without job_id the id is a hash of the content. Not with ``delay``,
    ``at`` or ``unique``.
    """
    job_id: str | None
    """The caller's own id for the job: up to 128 letters, digits, ``_`` and ``-``."""
    unique: bool
    """Refuse the job also if one with its id is done and still kept. Without job_id the id is a hash of the content."""
    timeout: timedelta | str | None
    """The time limit of one run, in the form of ``delay``."""
    connection: redis.Redis | None
    """Another Redis than that of REDIS_URL."""
    on_commit: bool
    """Inside a transaction that an integration tracks (Django's ``atomic``): enqueue after its commit, and not if it
    is rolled back. True by default; without such a transaction it has no effect.
    """
    outbox: Any
    """A SQLAlchemy session or connection, or one of Django or DB-API: the job is written to the table
    ``rqjobs_outbox`` in its transaction, and a worker moves it to Redis after the commit, once.
    """


_OPTIONS = frozenset(JobOptions.__annotations__)
_OF_THE_KIND = ("attempts", "backoff", "timeout", "debounce")  # with one of them, a job is not of the usual kind
_OF_THE_CALL = frozenset({"connection", "on_commit", "outbox"})  # of the whole call, not of a single job


def build_entry(job: JobModel, options: JobOptions, own: JobOptions | None, now: int) -> Entry:
    """Returns the job in the form that is written to Redis; ``now`` is in microseconds of Unix time."""
    try:
        queue = job.queue
    except AttributeError:
        fix = "a job model, which knows its queue, is needed: WebhookJob(**fields), or enqueue_webhook(fields)"
        raise InvalidJob(type(job).__name__, [fix]) from None
    policy = get_policy(queue)
    faults: list[str] = []
    if own:
        faults += [
            f"{name}: is for all jobs of the call, not for one of them" for name in sorted(_OF_THE_CALL & own.keys())
        ]
        options = cast("JobOptions", {**options, **own})
    if not options.keys() <= _OPTIONS:
        faults += [_unknown(str(name)) for name in options if name not in _OPTIONS]
    delay = _duration(options, "delay", faults)
    at = _at(options, faults)
    debounce = _debounce(options, faults)
    delay = debounce or delay
    kind = _kind(policy, options, debounce, bool(delay) or at is not None, faults)
    job_id = _job_id(job, options, now, faults)
    data = _encode(job, job_id)
    limit = get_settings().rqjobs_max_payload
    if len(data) > limit:
        faults.append(f"the job has {len(data)} bytes; RQJOBS_MAX_PAYLOAD allows {limit}: pass a reference instead")
    if policy.check is not None:
        faults.extend(load(policy.check)(job))
    if faults:
        raise InvalidJob(type(job).__name__, faults)
    wait = delay.total_seconds() if delay else None
    destination = f"{now}\n{to}" if (to := job.destination()) else ""
    entry = Entry(kind, job_id, wait, data, timestamp(now), job.label(), at=at, destination=destination)
    return entry._replace(again=_again(entry, job)) if debounce else entry


def _debounce(options: JobOptions, faults: list[str]) -> timedelta | None:
    debounce = _duration(options, "debounce", faults)
    if debounce is None:
        return None
    faults += [f"debounce: excludes {name}" for name in ("delay", "at", "unique") if options.get(name)]
    if not debounce:
        faults.append("debounce: must be longer than 0")
    return debounce


def _again(entry: Entry, job: JobModel) -> Entry:
    """Returns the entry of a debounced job that is written while the job with its id runs."""
    job_id = entry.job_id + "-again"
    return entry._replace(job_id=job_id, data=_encode(job, job_id))


def _encode(job: JobModel, job_id: str) -> bytes:
    kept = encrypt_job(job, job_id) if job.encrypted_field is not None else job
    return encode_data(job.queue, kept.dump_json())


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, sorted(_OPTIONS), 1)
    return f"unknown option '{name}'" + (f", did you mean '{close[0]}'?" if close else "")


def _kind(
    policy: QueuePolicy, options: JobOptions, debounce: timedelta | None, delayed: bool, faults: list[str]
) -> Kind:
    """Returns the part of the job that many jobs share.

    To save memory it omits the fields that RQ restores as None, and the time of enqueueing, which is that of creation.
    """
    priority = options.get("priority", "normal")
    if priority not in PRIORITIES:
        faults.append(f"priority: {priority!r} is none of {', '.join(PRIORITIES)}")
        priority = "normal"
    unique, trace = bool(options.get("unique")), context_to_carry()
    usual = not trace and (not options or all(options.get(name) is None for name in _OF_THE_KIND))
    group = _group(options, faults)
    known = _usual.get((policy.name, priority, unique, delayed)) if usual else None
    if known is not None and known[0] is policy:
        return _in_group(known[1], group) if group else known[1]
    attempts, backoff = _attempts(options, policy, faults)
    timeout = _duration(options, "timeout", faults) or policy.timeout
    name = lane(policy.name, priority)
    fields: dict[str, str | int] = {
        "status": JobStatus.SCHEDULED.value if delayed else JobStatus.QUEUED.value,
        "origin": name,
        "timeout": max(1, round(timeout.total_seconds())),
    }
    if attempts > 1:
        waits = [int(wait) if wait == int(wait) else wait for wait in backoff.waits(attempts)]
        fields |= {"retries_left": attempts - 1, "retry_intervals": json.dumps(waits)}
    if debounce is not None:
        fields["debounce"] = repr(debounce.total_seconds())
    if trace:
        fields["meta"] = encode_json({FIELD: trace})
    kind = Kind(name, unique, fields)
    if usual and not policy.backoff.jitter:
        _usual[policy.name, priority, unique, delayed] = (policy, kind)
    return _in_group(kind, group) if group else kind


def _group(options: JobOptions, faults: list[str]) -> str | None:
    group: Any = options.get("group")
    if group is None:
        return None
    if not isinstance(group, str) or not 1 <= len(group) <= MAX_GROUP or not group.isprintable():
        faults.append(f"group: {group!r:.100} is not a text of 1 to {MAX_GROUP} printable characters")
        return None
    return group


@lru_cache(10_000)
def _in_group(kind: Kind, group: str) -> Kind:
    return replace(kind, fields=kind.fields | {GROUP: group})


def _attempts(options: JobOptions, policy: QueuePolicy, faults: list[str]) -> tuple[int, Backoff]:
    given, backoff = options.get("backoff"), policy.backoff
    try:
        backoff = parse_backoff(given or policy.backoff)
    except (ValueError, AttributeError) as error:
        faults.append(f"backoff: {error}")
    attempts: Any = choose_attempts(options.get("attempts"), backoff if given else None, policy.attempts)
    if type(attempts) is not int or not 1 <= attempts <= MAX_ATTEMPTS:
        faults.append(f"attempts: {attempts!r} is not a whole number from 1 to {MAX_ATTEMPTS}")
        attempts = 1
    return attempts, backoff


def _duration(options: JobOptions, name: str, faults: list[str]) -> timedelta | None:
    value: Any = options.get(name)
    if value is None:
        return None
    try:
        duration = parse_explicit_duration(value)
    except (ValueError, TypeError, OverflowError) as error:
        faults.append(f"{name}: {error}")
        return None
    if duration > _MAX_DELAY:
        faults.append(f"{name}: {value!r} is longer than ten years")
    return duration


def _at(options: JobOptions, faults: list[str]) -> float | None:
    """Returns when the job is due, in Unix seconds."""
    value: Any = options.get("at")
    if value is None:
        return None
    if not isinstance(value, datetime) or value.tzinfo is None:
        faults.append(f"at: {value!r} is not a datetime with a time zone; write datetime(..., tzinfo=UTC)")
        return None
    if options.get("delay") is not None:
        faults.append("at: excludes delay; give one of them")
    moment = value.timestamp()
    if moment > time.time() + _MAX_DELAY.total_seconds():
        faults.append(f"at: {value.isoformat()} is more than ten years away")
    return moment


def _job_id(job: JobModel, options: JobOptions, now: int, faults: list[str]) -> str:
    job_id: Any = options.get("job_id")
    debounced = options.get("debounce") is not None
    if job_id is None:
        return _content_id(job) if options.get("unique") or debounced else new_id(now)
    if not isinstance(job_id, str) or not JOB_ID.fullmatch(job_id):
        faults.append(f"job_id: {job_id!r} is not 1 to 128 letters, digits, '_' and '-'")
    elif debounced and len(job_id) > 122:  # noqa: PLR2004  # "-again" may be added to it
        faults.append(f"job_id: {job_id!r} has more than 122 characters, the most with debounce")
    return str(job_id)


def new_id(now: int) -> str:
    """Returns 24 hex digits: 56 bits of microseconds, 40 random bits. They sort by time, in one process by order."""
    global _last_id  # noqa: PLW0603
    with _id_lock:
        _last_id = stamp = max(now, _last_id + 1)
    return f"{stamp:014x}{os.urandom(5).hex()}"


def _content_id(job: JobModel) -> str:
    content = json.dumps([job.queue, job.dump()], sort_keys=True).encode()
    return base64.b32hexencode(hashlib.sha256(content).digest()[:15]).decode().lower()


def outbox_row(entry: Entry, now: int) -> dict[str, Any]:
    """Returns the entry as a row of the outbox."""
    own: dict[str, Any] = {} if entry.delay is None else {ROW_DELAY: entry.delay}
    if entry.again is not None:
        own[ROW_AGAIN] = {"job_id": entry.again.job_id, "data": entry.again.data.decode()}
    own |= {"data": entry.data.decode(), "created_at": entry.created_at, "description": entry.description}
    if entry.destination:
        own[DESTINATION] = entry.destination
    return {
        "token": new_id(now),
        "job_id": entry.job_id,
        "lane": entry.kind.lane,
        "due": entry.at,
        "only_once": entry.kind.unique,
        "fields": encode_json({**entry.kind.fields, **own}),
    }


@cache
def _blank() -> dict[str, Any]:
    """Returns the attributes of an empty RQ job, cached: RQ's constructor takes longer than Redis to write a job."""
    return vars(Job("blank", connection=later(), serializer=SERIALIZER))


@lru_cache(1000)
def _attributes(kind: Kind) -> tuple[dict[str, Any], list[tuple[str, Any]]]:
    """Returns the attributes of an RQ job of this kind, and those of them that jobs must not share."""
    fields: dict[str, Any] = kind.fields
    attributes = _blank() | {
        "origin": kind.lane,
        "timeout": fields["timeout"],
        "retries_left": fields.get("retries_left"),
        "retry_intervals": json.loads(fields.get("retry_intervals", "null")),
        "meta": json.loads(fields.get("meta", "{}")),
        "_status": JobStatus(fields["status"]),
    }
    return attributes, [(name, value) for name, value in attributes.items() if isinstance(value, list | dict)]


def rq_job(entry: Entry, connection: redis.Redis) -> Job:
    """Returns the RQ job that was written, without reading it from Redis."""
    attributes, mutable = _attributes(entry.kind)
    created_at = datetime.fromisoformat(entry.created_at)
    job = Job.__new__(Job)
    vars(job).update(
        attributes,
        connection=connection,
        _id=entry.job_id,
        _data=entry.data,
        description=entry.description,
        created_at=created_at,
        enqueued_at=None if entry.is_delayed else created_at,
    )
    for name, value in mutable:
        setattr(job, name, value.copy())
    return job
