"""The enqueue functions: one for each kind of job, and the general ones."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, Unpack

from rqjobs import jobs as models
from rqjobs.broker.job_builder import JobOptions, build_entry, outbox_row, rq_job
from rqjobs.broker.job_writer import captured, later, write
from rqjobs.broker.rq_types import Job
from rqjobs.jobs.base import JobModel

ModelT = TypeVar("ModelT", bound=JobModel)


def enqueue_webhook(job: models.WebhookJob | Mapping[str, Any], /, **options: Unpack[JobOptions]) -> Job:
    """Enqueues the delivery of a webhook; returns and raises as :func:`enqueue` does."""
    return enqueue(_parse(models.WebhookJob, job), **options)


def enqueue_manychat_sync(job: models.ManyChatSyncJob | Mapping[str, Any], /, **options: Unpack[JobOptions]) -> Job:
    """Enqueues a change in ManyChat; returns and raises as :func:`enqueue` does."""
    return enqueue(_parse(models.ManyChatSyncJob, job), **options)


def enqueue_email(job: models.EmailJob | Mapping[str, Any], /, **options: Unpack[JobOptions]) -> Job:
    """Enqueues a mail; returns and raises as :func:`enqueue` does."""
    return enqueue(_parse(models.EmailJob, job), **options)


def enqueue_qr_analytics(job: models.QRAnalyticsJob | Mapping[str, Any], /, **options: Unpack[JobOptions]) -> Job:
    """Enqueues the counting of a QR event; returns and raises as :func:`enqueue` does."""
    return enqueue(_parse(models.QRAnalyticsJob, job), **options)


def enqueue_data_export(job: models.DataExportJob | Mapping[str, Any], /, **options: Unpack[JobOptions]) -> Job:
    """Enqueues an export; returns and raises as :func:`enqueue` does."""
    return enqueue(_parse(models.DataExportJob, job), **options)


def enqueue(job: JobModel, /, **options: Unpack[JobOptions]) -> Job:
    """Enqueues any job model, in one round trip.

    Returns:
        The RQ job; ``wait_for_result`` and ``rqjobs jobs show`` take its ``id``.

    Raises:
        InvalidJob: the job or an option is invalid; the message names every fault, and nothing was enqueued.
        DuplicateJob: a job with this id is waiting, delayed or running, or (with ``unique``) done and still kept.
        RedisUnavailable: Redis does not answer.
    """
    return enqueue_many([job], **options)[0]


def enqueue_many(jobs: Iterable[JobModel | tuple[JobModel, JobOptions]], /, **options: Unpack[JobOptions]) -> list[Job]:
    """Enqueues any mix of jobs in one round trip, in order.

    Args:
        jobs: job models, or pairs of a model and its own options, except ``connection``, ``on_commit`` and ``outbox``,
            which apply to the whole call.
        options: the options of all jobs without their own.

    Raises:
        InvalidJob: a job or an option is invalid; none of the jobs was enqueued.
        DuplicateJob: jobs with these ids exist already; the other jobs are enqueued.
        RedisUnavailable: Redis does not answer.
    """
    now = time.time_ns() // 1000
    entries = []
    for index, item in enumerate(jobs):
        job, own = item if isinstance(item, tuple) else (item, None)
        entries.append(build_entry(job, options, own, now + index))  # created_at keeps their order
    if not entries:
        return []
    connection = options.get("connection")
    if (outbox := options.get("outbox")) is not None:
        if not captured(entries):
            from rqjobs.database.outbox import store  # SQLAlchemy is heavy, and a web process may not need it

            store(outbox, [outbox_row(entry, now) for entry in entries])
        connection = connection or later()
    else:
        connection = write(entries, connection, on_commit=options.get("on_commit", True))
    return [rq_job(entry, connection) for entry in entries]


def _parse(model: type[ModelT], job: object) -> ModelT:
    return job if isinstance(job, model) else model.parse(job)
