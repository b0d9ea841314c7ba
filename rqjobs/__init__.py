"""rqjobs: five background jobs (webhooks, ManyChat sync, email, QR analytics, data export) on RQ and Redis.

    from rqjobs import WebhookJob, enqueue_webhook

    enqueue_webhook(WebhookJob(webhook_id="wh_1", event="qr.scanned", url="https://...", payload={...}))

In a terminal: ``rqjobs worker``.
"""

from typing import TYPE_CHECKING

from rqjobs.config.lazy_imports import lazy_exports

if TYPE_CHECKING:
    from rqjobs.aio import (
        aenqueue,
        aenqueue_batch,
        aenqueue_chain,
        aenqueue_data_export,
        aenqueue_email,
        aenqueue_many,
        aenqueue_manychat_sync,
        aenqueue_qr_analytics,
        aenqueue_webhook,
        aqueue_health,
        await_batch,
        await_result,
    )
    from rqjobs.batches import Batch, BatchProgress, enqueue_batch, enqueue_chain, get_batch
    from rqjobs.broker.job_builder import JobOptions
    from rqjobs.broker.results import wait_for_result
    from rqjobs.config.backoff import exponential, fixed, schedule
    from rqjobs.decorator import job
    from rqjobs.enqueueing import (
        enqueue,
        enqueue_data_export,
        enqueue_email,
        enqueue_many,
        enqueue_manychat_sync,
        enqueue_qr_analytics,
        enqueue_webhook,
    )
    from rqjobs.errors import (
        BatchFailed,
        BatchNotFound,
        BatchTimeout,
        DependencyUnavailable,
        DuplicateJob,
        InvalidJob,
        JobFailed,
        PermanentFailure,
        ResultTimeout,
        RetryLater,
        RQJobsError,
    )
    from rqjobs.hooks import JobEvent, on
    from rqjobs.jobs import DataExportJob, EmailJob, ManyChatSyncJob, QRAnalyticsJob, WebhookJob
    from rqjobs.monitoring.queue_health import queue_health

__all__ = [
    "Batch",
    "BatchFailed",
    "BatchNotFound",
    "BatchProgress",
    "BatchTimeout",
    "DataExportJob",
    "DependencyUnavailable",
    "DuplicateJob",
    "EmailJob",
    "InvalidJob",
    "JobEvent",
    "JobFailed",
    "JobOptions",
    "ManyChatSyncJob",
    "PermanentFailure",
    "QRAnalyticsJob",
    "RQJobsError",
    "ResultTimeout",
    "RetryLater",
    "WebhookJob",
    "aenqueue",
    "aenqueue_batch",
    "aenqueue_chain",
    "aenqueue_data_export",
    "aenqueue_email",
    "aenqueue_many",
    "aenqueue_manychat_sync",
    "aenqueue_qr_analytics",
    "aenqueue_webhook",
    "aqueue_health",
    "await_batch",
    "await_result",
    "enqueue",
    "enqueue_batch",
    "enqueue_chain",
    "enqueue_data_export",
    "enqueue_email",
    "enqueue_many",
    "enqueue_manychat_sync",
    "enqueue_qr_analytics",
    "enqueue_webhook",
    "exponential",
    "fixed",
    "get_batch",
    "job",
    "on",
    "queue_health",
    "schedule",
    "wait_for_result",
]

if not TYPE_CHECKING:  # with a __getattr__, a type checker would accept misspelt names
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "aio": ("aenqueue", "aenqueue_batch", "aenqueue_chain", "aenqueue_data_export", "aenqueue_email",
                    "aenqueue_many", "aenqueue_manychat_sync",
                    "aenqueue_qr_analytics", "aenqueue_webhook", "aqueue_health", "await_batch", "await_result"),
            "batches": ("Batch", "BatchProgress", "enqueue_batch", "enqueue_chain", "get_batch"),
            "config.backoff": ("exponential", "fixed", "schedule"),
            "broker.job_builder": ("JobOptions",),
            "enqueueing": ("enqueue", "enqueue_data_export", "enqueue_email", "enqueue_many",
                           "enqueue_manychat_sync", "enqueue_qr_analytics", "enqueue_webhook"),
            "errors": ("BatchFailed", "BatchNotFound", "BatchTimeout", "DependencyUnavailable", "DuplicateJob",
                       "InvalidJob", "JobFailed", "PermanentFailure",
                       "RQJobsError", "ResultTimeout", "RetryLater"),
            "hooks": ("JobEvent", "on"),
            "monitoring.queue_health": ("queue_health",),
            "jobs": ("DataExportJob", "EmailJob", "ManyChatSyncJob", "QRAnalyticsJob", "WebhookJob"),
            "decorator": ("job",),
            "broker.results": ("wait_for_result",),
        },
    )  # fmt: skip
