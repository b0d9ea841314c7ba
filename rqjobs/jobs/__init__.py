"""The five jobs, as data."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rqjobs.jobs.analytics import QRAnalyticsJob
    from rqjobs.jobs.base import JobModel
    from rqjobs.jobs.email import Attachment, EmailJob
    from rqjobs.jobs.export import DataExportJob
    from rqjobs.jobs.manychat import ManyChatSyncJob
    from rqjobs.jobs.webhook import WebhookJob

__all__ = ["Attachment", "DataExportJob", "EmailJob", "JobModel", "ManyChatSyncJob", "QRAnalyticsJob", "WebhookJob"]

_MODULE_OF = {
    "Attachment": "email",
    "DataExportJob": "export",
    "EmailJob": "email",
    "JobModel": "base",
    "ManyChatSyncJob": "manychat",
    "QRAnalyticsJob": "analytics",
    "WebhookJob": "webhook",
}


def __getattr__(name: str) -> Any:
    """Imports the model that is asked for (PEP 562): building all of them takes as long as the rest of a command."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
