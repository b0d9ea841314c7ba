"""The data models of the five jobs."""

from typing import TYPE_CHECKING

from rqjobs.config.lazy_imports import lazy_exports

if TYPE_CHECKING:
    from rqjobs.jobs.analytics import QRAnalyticsJob
    from rqjobs.jobs.base import JobModel
    from rqjobs.jobs.email import Attachment, EmailJob
    from rqjobs.jobs.export import DataExportJob
    from rqjobs.jobs.manychat import ManyChatSyncJob
    from rqjobs.jobs.webhook import WebhookJob

__all__ = ["Attachment", "DataExportJob", "EmailJob", "JobModel", "ManyChatSyncJob", "QRAnalyticsJob", "WebhookJob"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "analytics": ("QRAnalyticsJob",),
            "base": ("JobModel",),
            "email": ("Attachment", "EmailJob"),
            "export": ("DataExportJob",),
            "manychat": ("ManyChatSyncJob",),
            "webhook": ("WebhookJob",),
        },
    )
