"""QRAnalyticsJob: one thing that happened to a QR code."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator

from rqjobs.jobs.base import EventName, JobModel, Name, json_object

QR_EVENTS = {
    "scan": ("scan", "scanned", "view", "viewed"),
    "validation": ("validation", "validate", "validated"),
    "creation": ("creation", "create", "created", "generate", "generated"),
    "redemption": ("redemption", "redeem", "redeemed"),
    "expiry": ("expiry", "expire", "expired"),
    "download": ("download", "downloaded"),
    "share": ("share", "shared"),
}
"""The events that are counted, each with the spellings that producers use."""

CANONICAL_EVENT = {spelling: event for event, spellings in QR_EVENTS.items() for spelling in spellings}
"""Every spelling to its event."""


def check_event(event: str) -> str:
    """``event`` if it is one that is counted, with or without a leading ``qr.``.

    Raises:
        ValueError: it is not.
    """
    if event.removeprefix("qr.") not in CANONICAL_EVENT:
        raise ValueError(f"unknown event {event!r}; the events are {', '.join(QR_EVENTS)}")
    return event


class QRAnalyticsJob(JobModel):
    """Count one event of a QR code, once."""

    queue: ClassVar[str] = "qr-analytics"

    qr_code_id: Name
    """The code that it happened to."""
    event: Annotated[EventName, AfterValidator(check_event)]
    """What happened: a spelling of one of QR_EVENTS."""
    data: Annotated[dict[str, Any], json_object("data")]
    """event_id, timestamp, user_id, user_agent, ip, location, result; other keys are kept as they are."""

    def label(self) -> str:
        """``qr scan of qr_1``."""
        return f"qr {CANONICAL_EVENT[self.event.removeprefix('qr.')]} of {self.qr_code_id}"
