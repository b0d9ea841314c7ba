"""The header Retry-After of an answer (RFC 9110, 10.2.3), read in one way for every API and every webhook."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

_LONGEST = 100  # characters; an HTTP date has 29, and Python parses far longer ones
_DIGITS = 12


def parse_retry_after(
    value: str | None, *, limit: timedelta, date: str | None = None, now: datetime | None = None
) -> timedelta | None:
    """The wait that the header ``value`` requests.

    Args:
        value: the header: seconds, or an HTTP date in any of its three forms.
        limit: the longest wait that is believed.
        date: the answer's own header ``Date``. An HTTP date is counted from it, so that neither clock has to be right.
        now: what it is counted from without ``date``; this machine's clock by default.

    Returns:
        Zero (now, or a date that has passed) to ``limit``; None where ``value`` is missing or unreadable.
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
