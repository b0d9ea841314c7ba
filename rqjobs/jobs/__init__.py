"""The five jobs, as data."""

from rqjobs.jobs.analytics import QRAnalyticsJob
from rqjobs.jobs.base import JobModel
from rqjobs.jobs.email import Attachment, EmailJob
from rqjobs.jobs.export import DataExportJob
from rqjobs.jobs.manychat import ManyChatSyncJob
from rqjobs.jobs.webhook import WebhookJob

__all__ = ["Attachment", "DataExportJob", "EmailJob", "JobModel", "ManyChatSyncJob", "QRAnalyticsJob", "WebhookJob"]
