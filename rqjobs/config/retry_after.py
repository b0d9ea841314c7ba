"""Parses the header Retry-After of a response (RFC 9110, 10.2.3), for every API and every webhook."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

_LONGEST = 100  # characters; an HTTP date has 29, and Python parses far longer ones
_DIGITS = 12


def parse_retry_after(
    value: str | None, *, limit: timedelta, date: str | None = None, now: datetime | None = None
) -> timedelta | None:
    """Returns the wait that the header requests.

    Args:
        value: the header: seconds, or an HTTP date in any of its three forms.
        limit: the longest wait that is returned.
        date: the response's header ``Date``. The wait until an HTTP date is counted from it, so that the clocks may
            differ.
        now: the time to count from without ``date``; by default this machine's clock.

    Returns:
        From zero (also for a past date) to ``limit``; None if ``value`` is missing or invalid.
    """
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:_DIGITS])
    else:
        moment = _parse_date(text)
        if moment is None:
            return None
        seconds = (moment - (_parse_date((date or "").strip()) or now or datetime.now(UTC))).total_seconds()
    return timedelta(seconds=max(0.0, min(seconds, limit.total_seconds())))


def _parse_date(text: str) -> datetime | None:
    if not text or len(text) > _LONGEST:
        return None
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, LookupError, ArithmeticError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)  # "-0000", and asctime's form: UTC
