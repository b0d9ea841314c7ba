"""rqjobs: the five background jobs every product needs, done right on RQ and Redis.

    from rqjobs import WebhookJob, enqueue_webhook

    enqueue_webhook(WebhookJob(webhook_id="wh_1", event="qr.scanned", url="https://...", payload={...}))

and, in a terminal: ``rqjobs worker``.
"""

from typing import TYPE_CHECKING

from rqjobs.lazily import lazily

if TYPE_CHECKING:
    from rqjobs.aio import (
        aenqueue,
        aenqueue_data_export,
        aenqueue_email,
        aenqueue_many,
        aenqueue_manychat_sync,
        aenqueue_qr_analytics,
        aenqueue_webhook,
        aqueue_health,
        await_result,
    )
    from rqjobs.backoff import exponential, fixed
    from rqjobs.enqueueing import (
        JobOptions,
        enqueue,
        enqueue_data_export,
        enqueue_email,
        enqueue_many,
        enqueue_manychat_sync,
        enqueue_qr_analytics,
        enqueue_webhook,
    )
    from rqjobs.errors import (
        DependencyUnavailable,
        DuplicateJob,
        InvalidJob,
        JobFailed,
        PermanentFailure,
        ResultTimeout,
        RetryLater,
        RQJobsError,
    )
    from rqjobs.health import queue_health
    from rqjobs.jobs import DataExportJob, EmailJob, ManyChatSyncJob, QRAnalyticsJob, WebhookJob
    from rqjobs.ownjobs import job
    from rqjobs.results import wait_for_result

__all__ = [
    "DataExportJob",
    "DependencyUnavailable",
    "DuplicateJob",
    "EmailJob",
    "InvalidJob",
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
    "aenqueue_data_export",
    "aenqueue_email",
    "aenqueue_many",
    "aenqueue_manychat_sync",
    "aenqueue_qr_analytics",
    "aenqueue_webhook",
    "aqueue_health",
    "await_result",
    "enqueue",
    "enqueue_data_export",
    "enqueue_email",
    "enqueue_many",
    "enqueue_manychat_sync",
    "enqueue_qr_analytics",
    "enqueue_webhook",
    "exponential",
    "fixed",
    "job",
    "queue_health",
    "wait_for_result",
]

if not TYPE_CHECKING:  # a type checker that saw a __getattr__ would accept every misspelt name
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "aio": ("aenqueue", "aenqueue_data_export", "aenqueue_email", "aenqueue_many", "aenqueue_manychat_sync",
                    "aenqueue_qr_analytics", "aenqueue_webhook", "aqueue_health", "await_result"),
            "backoff": ("exponential", "fixed"),
            "enqueueing": ("JobOptions", "enqueue", "enqueue_data_export", "enqueue_email", "enqueue_many",
                           "enqueue_manychat_sync", "enqueue_qr_analytics", "enqueue_webhook"),
            "errors": ("DependencyUnavailable", "DuplicateJob", "InvalidJob", "JobFailed", "PermanentFailure",
                       "RQJobsError", "ResultTimeout", "RetryLater"),
            "health": ("queue_health",),
            "jobs": ("DataExportJob", "EmailJob", "ManyChatSyncJob", "QRAnalyticsJob", "WebhookJob"),
            "ownjobs": ("job",),
            "results": ("wait_for_result",),
        },
    )  # fmt: skip
