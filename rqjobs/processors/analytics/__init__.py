"""QR analytics: counts every scan once, and makes reports in milliseconds.

``record`` and ``record_batch`` run the jobs, ``report`` makes a report, ``on_event`` registers a function of the app.
"""

from rqjobs.processors.analytics.events import QREvent
from rqjobs.processors.analytics.hooks import on_event
from rqjobs.processors.analytics.period import InvalidPeriod
from rqjobs.processors.analytics.processor import record, record_batch
from rqjobs.processors.analytics.reporting import Report, report
from rqjobs.processors.analytics.retention import purge

__all__ = ["InvalidPeriod", "QREvent", "Report", "on_event", "purge", "record", "record_batch", "report"]
