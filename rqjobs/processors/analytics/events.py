"""Makes the stored event from a job: keys in one spelling, times in UTC, no raw personal data."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from rqjobs.attempt import Attempt
from rqjobs.errors import PermanentFailure
from rqjobs.jobs import QRAnalyticsJob
from rqjobs.jobs.analytics import CANONICAL_EVENT, parse_timestamp
from rqjobs.processors.analytics.enrich import UNKNOWN, classify, clean, read_ip, visitor_key

_MAX_ID = 255
_COUNTRY_KEYS = ("country", "country_code", "countryCode")
_OWN_KEYS = frozenset(
    ("event_id", "eventId", "timestamp", "user_id", "userId", "user_agent", "userAgent", "ip", "ip_address",
     "ipAddress", "location", "result")
)  # fmt: skip


class QREvent(NamedTuple):
    """One event as it is stored, and as ``on_event`` functions receive it. The fields are the table's columns."""

    event_id: str
    """The unique id, by which an event that arrives twice is counted once."""
    qr_code_id: str
    user_id: str | None
    """The owner of the code, if the producer gave one."""
    event: str
    """The canonical name of the event, such as ``scan``; see rqjobs.jobs.analytics.QR_EVENTS."""
    result: str | None
    """The result of a validation, in lower case: ``valid``, ``expired`` ..."""
    occurred_at: datetime
    """The time of the event, in UTC."""
    bot: bool
    device: str
    """``mobile``, ``tablet``, ``desktop``, ``bot``, ``other``, or ``unknown`` when no user agent was given."""
    os: str | None
    browser: str | None
    country: str | None
    city: str | None
    ip: str | None
    """Truncated: the last 8 bits of IPv4 and the last 80 bits of IPv6 are zero."""
    visitor: str | None
    """A key of the visitor: the same for all codes of one owner on one UTC day. It reveals nothing else."""
    extra: Mapping[str, Any] | None
    """The keys of the job's data that are not fields of the event."""


def make_event(job: QRAnalyticsJob, attempt: Attempt, secret: bytes) -> QREvent:
    """Returns the enriched event of ``job``; ``secret`` is the key of visitor keys.

    Raises:
        PermanentFailure: a value of the job's data is invalid; the reason names it.
    """
    data = job.data
    user_id = _identifier(data, "user_id", "userId")
    occurred_at = _occurred_at(data, attempt)
    agent = _text(data.get("user_agent", data.get("userAgent")))
    client = UNKNOWN if agent is None else classify(agent)
    ip, network = read_ip(_text(data.get("ip") or data.get("ip_address") or data.get("ipAddress")) or "")
    country, city, rest = _place(data.get("location"))
    extra = {key: value for key, value in data.items() if key not in _OWN_KEYS}
    if rest:
        extra["location"] = rest
    return QREvent(
        event_id=_identifier(data, "event_id", "eventId") or f"job-{attempt.job_id}",
        qr_code_id=job.qr_code_id,
        user_id=user_id,
        event=CANONICAL_EVENT[job.event.removeprefix("qr.")],
        result=_result(data.get("result")),
        occurred_at=occurred_at,
        bot=client.bot,
        device=client.device,
        os=client.os,
        browser=client.browser,
        country=country,
        city=city,
        ip=network,
        visitor=visitor_key(secret, occurred_at.date(), user_id or "", ip, agent or ""),
        extra=extra or None,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _identifier(data: Mapping[str, Any], snake: str, camel: str) -> str | None:
    value = data.get(snake)
    if value is None:
        value = data.get(camel)
        if value is None:
            return None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_ID or not value.isprintable():
        raise PermanentFailure(f"data.{snake} is not an id: 1 to {_MAX_ID} printable characters, or a whole number")
    return value


def _occurred_at(data: Mapping[str, Any], attempt: Attempt) -> datetime:
    timestamp = data.get("timestamp")
    try:
        return attempt.enqueued_at if timestamp is None else parse_timestamp(timestamp)
    except ValueError as error:
        raise PermanentFailure(f"data.timestamp: {error}") from None


def _result(value: object) -> str | None:
    if isinstance(value, bool):
        return "valid" if value else "invalid"
    return clean(value, 64).lower() if isinstance(value, str) and value else None


def _place(location: object) -> tuple[str | None, str | None, object]:
    """Returns country, city and the other fields of ``location``, an object or a text such as ``Berlin, DE``."""
    if isinstance(location, str):
        head, comma, tail = location.rpartition(",")
        return (_name(tail), _name(head), None) if comma else (None, _name(tail), None)
    if not isinstance(location, dict):
        return None, None, location
    used = ("city", next((key for key in _COUNTRY_KEYS if location.get(key)), "country"))
    rest = {key: value for key, value in location.items() if key not in used}
    return _name(location.get(used[1])), _name(location.get("city")), rest


def _name(value: object) -> str | None:
    return clean(value, 100) or None if isinstance(value, str) else None
