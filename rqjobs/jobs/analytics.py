"""QRAnalyticsJob: one event of a QR code."""

from __future__ import annotations

from datetime import UTC, datetime
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
"""The events that are counted, each with the spellings that producers may use."""

CANONICAL_EVENT = {spelling: event for event, spellings in QR_EVENTS.items() for spelling in spellings}
"""The event of each spelling."""

_MILLISECONDS = 100_000_000_000  # as seconds this is the year 5138, so a larger number is in milliseconds


def check_event(event: str) -> str:
    """Returns ``event`` if it is a known one, with or without a leading ``qr.``.

    Raises:
        ValueError: it is unknown.
    """
    if event.removeprefix("qr.") not in CANONICAL_EVENT:
        raise ValueError(f"unknown event {event!r}; the events are {', '.join(QR_EVENTS)}")
    return event


def parse_timestamp(value: object) -> datetime:
    """Returns a producer's ``timestamp`` as a moment in UTC.

    It is ISO 8601 (in UTC if it has no offset), or Unix time as a number, in seconds or in milliseconds.

    Raises:
        ValueError: it is neither, or not between the years 1970 and 2200.
    """
    moment = None
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            moment = datetime.fromtimestamp(value / 1000 if abs(value) >= _MILLISECONDS else value, UTC)
    except (ValueError, OverflowError, OSError):
        moment = None
    if moment is None or not 1970 <= moment.year < 2200:  # noqa: PLR2004  # the range of the docstring
        raise ValueError(f"{value!r:.50} is not a time; write ISO 8601 or Unix time")
    return moment


def _check_timestamp(data: dict[str, Any]) -> dict[str, Any]:
    timestamp = data.get("timestamp")
    if timestamp is not None:
        parse_timestamp(timestamp)
    return data


class QRAnalyticsJob(JobModel):
    """Count one event of a QR code, once."""

    queue: ClassVar[str] = "qr-analytics"

    qr_code_id: Name
    """The id of the QR code."""
    event: Annotated[EventName, AfterValidator(check_event)]
    """The event: a spelling of one of QR_EVENTS."""
    data: Annotated[dict[str, Any], json_object("data"), AfterValidator(_check_timestamp)]
    """event_id, timestamp, user_id, user_agent, ip, location, result; other keys are stored unchanged."""

    def label(self) -> str:
        """``qr scan of qr_1``."""
        return f"qr {CANONICAL_EVENT[self.event.removeprefix('qr.')]} of {self.qr_code_id}"
