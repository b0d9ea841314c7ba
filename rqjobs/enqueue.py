"""Enqueueing: thin wrappers, one for each kind of job, over the one place that writes jobs to Redis."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, TypedDict, TypeVar, Unpack, cast

import redis
from rq.job import Job, JobStatus

from rqjobs.backoff import MAX_ATTEMPTS, Backoff, parse_backoff
from rqjobs.durations import parse_duration
from rqjobs.errors import InvalidJob
from rqjobs.jobs import (
    DataExportJob,
    EmailJob,
    JobModel,
    ManyChatSyncJob,
    QRAnalyticsJob,
    WebhookJob,
)
from rqjobs.layout import SERIALIZER, encode_data
from rqjobs.queues import PRIORITIES, Priority, QueuePolicy, get_policy, lane, load
from rqjobs.settings import get_settings
from rqjobs.tracing import FIELD, context_to_carry
from rqjobs.writing import Entry, later, write

_blank: dict[str, Any] | None = None
_empty: dict[str, type] = {}
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")  # RQ's own rule, and a length
_MAX_DELAY = timedelta(days=3660)

_id_lock = threading.Lock()
_last_id = 0

ModelT = TypeVar("ModelT", bound=JobModel)


class JobOptions(TypedDict, total=False):
    """How a job is enqueued. They never share a namespace with the job's own fields; None means the policy's."""

    priority: Priority
    """``high``, ``normal`` (the default) or ``low``: the lane."""
    attempts: int | None
    """How often the job is run at most, 1 to 100."""
    backoff: Backoff | str | None
    """The waits between the runs, such as ``exponential("5s")`` or ``"fixed:10s"``."""
    delay: timedelta | str | None
    """How long the job waits before its first run."""
    job_id: str | None
    """An id of the caller's own: letters, digits, ``_`` and ``-``, 128 at most."""
    unique: bool
    """Refuse a job that was done lately as well; without job_id the id is made from the job's content."""
    timeout: timedelta | str | None
    """The time limit of one run."""
    connection: redis.Redis | None
    """Another Redis than that of REDIS_URL."""
    on_commit: bool
    """Inside a transaction that an integration knows of (Django's ``atomic``): enqueue after its commit, and not at
    all if it is rolled back. True by default; without such a transaction it makes no difference.
    """
    outbox: Any
    """A SQLAlchemy session or connection, or a Django or DB-API one: the job is written to the table ``rqjobs_outbox``
    in its transaction, and a worker moves it to Redis after the commit, once.
    """


def enqueue_webhook(job: WebhookJob | Mapping[str, Any], /, **options: Unpack[JobOptions]) -> Job:
    """Enqueues the delivery of a webhook; see :func:`enqueue` for what is returned and raised."""
    return enqueue(_parse(WebhookJob, job), **options)


def enqueue_manychat_sync(job: ManyChatSyncJob | Mapping[str, Any], /, **options: Unpack[JobOptions]) -> Job:
    """Enqueues a change in ManyChat; see :func:`enqueue` for what is returned and raised."""
    return enqueue(_parse(ManyChatSyncJob, job), **options)


def enqueue_email(job: EmailJob | Mapping[str, Any], /, **options: Unpack[JobOptions]) -> Job:
    """Enqueues a mail; see :func:`enqueue` for what is returned and raised."""
    return enqueue(_parse(EmailJob, job), **options)


def enqueue_qr_analytics(job: QRAnalyticsJob | Mapping[str, Any], /, **options: Unpack[JobOptions]) -> Job:
    """Enqueues the counting of a QR event; see :func:`enqueue` for what is returned and raised."""
    return enqueue(_parse(QRAnalyticsJob, job), **options)


def enqueue_data_export(job: DataExportJob | Mapping[str, Any], /, **options: Unpack[JobOptions]) -> Job:
    """Enqueues an export; see :func:`enqueue` for what is returned and raised."""
    return enqueue(_parse(DataExportJob, job), **options)


def enqueue(job: JobModel, /, **options: Unpack[JobOptions]) -> Job:
    """Enqueues any job model, in one round trip.

    Returns:
        The RQ job; its ``id`` is what ``wait_for_result`` and ``rqjobs jobs show`` take.

    Raises:
        InvalidJob: the job or an option has faults, each named; nothing has reached Redis.
        DuplicateJob: a job of this id is waiting, delayed or running, or (with ``unique``) lately done.
        RedisUnavailable: Redis does not answer.
    """
    return enqueue_many([job], **options)[0]


def enqueue_many(jobs: Iterable[JobModel | tuple[JobModel, JobOptions]], /, **options: Unpack[JobOptions]) -> list[Job]:
    """Enqueues any mix of jobs in one round trip, in order.

    Args:
        jobs: job models, or pairs of a model and options of its own.
        options: for every job that brings none of its own.

    Raises:
        InvalidJob: a job or an option has faults; none of the jobs has reached Redis.
        DuplicateJob: naming the ids that were there already; the other jobs are enqueued.
        RedisUnavailable: Redis does not answer.
    """
    now = round(time.time(), 6)
    entries = []
    for index, item in enumerate(jobs):
        job, own = item if isinstance(item, tuple) else (item, cast("JobOptions", {}))
        entries.append(
            _entry(job, cast("JobOptions", {**options, **own}), now + index * 1e-6)
        )  # their order is in created_at
    if not entries:
        return []
    connection = options.get("connection")
    if (outbox := options.get("outbox")) is not None:
        from rqjobs.database.outbox import store  # SQLAlchemy is heavy, and a web process may not need it

        store(outbox, [_row(entry, now) for entry in entries])
        connection = connection or later()
    else:
        connection = write(entries, connection, on_commit=options.get("on_commit", True))
    return [_rq_job(entry, connection) for entry in entries]


def _parse(model: type[ModelT], job: object) -> ModelT:
    return job if isinstance(job, model) else model.parse(job)


def _entry(job: JobModel, options: JobOptions, now: float) -> Entry:
    """The job's hash as RQ reads it. Left out is what RQ restores as None anyway: memory counts for a backlog."""
    kind = type(job).__name__
    policy = get_policy(job.queue)
    faults: list[str] = []
    attempts, waits = _attempts(options, policy, faults)
    timeout = _duration(options, "timeout", faults) or policy.timeout
    delay = _duration(options, "delay", faults)
    priority = options.get("priority", "normal")
    if priority not in PRIORITIES:
        faults.append(f"priority: {priority!r} is none of {', '.join(PRIORITIES)}")
    data = encode_data(policy.name, job.dump())
    limit = get_settings().rqjobs_max_payload
    if len(data) > limit:
        faults.append(f"the job has {len(data)} bytes; RQJOBS_MAX_PAYLOAD allows {limit}: pass a reference instead")
    job_id = _job_id(job, options, now, faults)
    if policy.check is not None:
        faults.extend(load(policy.check)(job))
    if faults:
        raise InvalidJob(kind, faults)
    name = lane(policy.name, priority)
    stamp = _stamp(now)
    fields: dict[str, Any] = {
        "data": data,
        "status": JobStatus.SCHEDULED.value if delay else JobStatus.QUEUED.value,
        "origin": name,
        "created_at": stamp,
        "description": job.label(),
        "timeout": max(1, round(timeout.total_seconds())),
    }
    if not delay:
        fields["enqueued_at"] = stamp
    if attempts > 1:
        fields["retries_left"] = attempts - 1
        fields["retry_intervals"] = waits
    if trace := context_to_carry():
        fields["meta"] = json.dumps({FIELD: trace})
    due = now + delay.total_seconds() if delay else None
    return Entry(job_id, name, due, options.get("unique", False), fields)


def _attempts(options: JobOptions, policy: QueuePolicy, faults: list[str]) -> tuple[int, str]:
    given: Any = options.get("attempts")
    attempts = policy.attempts if given is None else given
    if type(attempts) is not int or not 1 <= attempts <= MAX_ATTEMPTS:
        faults.append(f"attempts: {attempts!r} is not a whole number from 1 to {MAX_ATTEMPTS}")
        attempts = 1
    try:
        backoff = parse_backoff(options.get("backoff") or policy.backoff)
    except (ValueError, AttributeError) as error:
        faults.append(f"backoff: {error}")
        return attempts, "[]"
    return attempts, _waits(backoff, attempts) if backoff.jitter else _fixed_waits(backoff, attempts)


def _waits(backoff: Backoff, attempts: int) -> str:
    """The waits as RQ stores them."""
    return json.dumps([int(wait) if wait == int(wait) else wait for wait in backoff.waits(attempts)])


_fixed_waits = lru_cache(1000)(_waits)


def _duration(options: JobOptions, name: str, faults: list[str]) -> timedelta | None:
    value: Any = options.get(name)
    if value is None:
        return None
    try:
        duration = parse_duration(value)
    except (ValueError, TypeError, OverflowError) as error:
        faults.append(f"{name}: {error}")
        return None
    if duration > _MAX_DELAY:
        faults.append(f"{name}: {value!r} is longer than ten years")
    return duration


def _job_id(job: JobModel, options: JobOptions, now: float, faults: list[str]) -> str:
    job_id: Any = options.get("job_id")
    if job_id is None:
        return _content_id(job) if options.get("unique") else _new_id(now)
    if not isinstance(job_id, str) or not _JOB_ID.fullmatch(job_id):
        faults.append(f"job_id: {job_id!r} is not 1 to 128 letters, digits, '_' and '-'")
    return str(job_id)


def _new_id(now: float) -> str:
    """24 hex digits that sort by time and, in one process, by order: 56 bits of microseconds, 40 random bits."""
    global _last_id  # noqa: PLW0603
    with _id_lock:
        _last_id = max(int(now * 1_000_000), _last_id + 1)
        stamp = _last_id
    return (stamp.to_bytes(7) + os.urandom(5)).hex()


def _content_id(job: JobModel) -> str:
    content = json.dumps([job.queue, job.dump()], sort_keys=True).encode()
    return base64.b32hexencode(hashlib.sha256(content).digest()[:15]).decode().lower()


def _stamp(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds")[:26] + "Z"


def _row(entry: Entry, now: float) -> dict[str, Any]:
    """The entry as the outbox keeps it."""
    fields = {**entry.fields, "data": entry.fields["data"].decode()}
    return {
        "token": _new_id(now),
        "job_id": entry.job_id,
        "lane": entry.lane,
        "due": entry.due,
        "only_once": entry.unique,
        "fields": json.dumps(fields),
        "created_at": now,
    }


def _new_job(connection: redis.Redis) -> Job:
    """An empty RQ job. RQ's constructor looks at its serializer for longer than Redis takes to write the job."""
    global _blank  # noqa: PLW0603
    if _blank is None:
        _blank = vars(Job("blank", connection=connection, serializer=SERIALIZER))
        _empty.update({name: type(value) for name, value in _blank.items() if isinstance(value, list | dict)})
    job = Job.__new__(Job)
    vars(job).update(_blank)
    for name, kind in _empty.items():  # not shared between jobs
        setattr(job, name, kind())
    job.connection = connection
    return job


def _rq_job(entry: Entry, connection: redis.Redis) -> Job:
    """The RQ job that was written, without reading it back."""
    fields = entry.fields
    job = _new_job(connection)
    job._id = entry.job_id  # noqa: SLF001  # the setter checks what was checked
    job.data = fields["data"]
    job.origin = entry.lane
    job.description = fields["description"]
    job.created_at = datetime.fromisoformat(fields["created_at"])
    job.enqueued_at = job.created_at if entry.due is None else None
    job.timeout = fields["timeout"]
    job.retries_left = fields.get("retries_left")
    if "meta" in fields:
        job.meta = json.loads(fields["meta"])
    if "retry_intervals" in fields:
        job.retry_intervals = json.loads(fields["retry_intervals"])
    job._status = JobStatus(fields["status"])  # noqa: SLF001  # the setter would write to Redis
    return job
