"""The filters of mail templates in addition to Jinja's own: dates, times, money, safe links."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime, time
from decimal import Decimal, InvalidOperation
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_SIGNS = {"EUR": "\u20ac", "USD": "$", "GBP": "\u00a3", "JPY": "\u00a5", "ILS": "\u20aa", "INR": "\u20b9"}
_WHOLE = frozenset(
    {"JPY", "KRW", "CLP", "ISK", "UGX", "VND", "XAF", "XOF", "XPF", "PYG", "RWF"}
)  # ISO 4217: no minor unit
_COLOR = re.compile(r"#(?:[0-9a-fA-F]{3,4}|[0-9a-fA-F]{6}|[0-9a-fA-F]{8})|[a-z]{3,20}")
_SHORT_COLOR = len("#rgba")
_WHITE, _BLACK = "#ffffff", "#111827"
_SCHEMES = ("http", "https", "mailto", "tel")


def _moment(value: object, tz: str) -> datetime:
    """Returns ``value`` (ISO 8601 or Unix seconds) in the time zone ``tz``; a time without a zone is in that zone."""
    try:
        zone = ZoneInfo(tz)
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(f"{tz!r} is not a time zone; write Europe/Berlin") from None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return datetime.fromtimestamp(value, UTC).astimezone(zone)
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a date; pass ISO 8601 or Unix seconds")  # noqa: TRY004  # one kind of fault
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"{value!r} is not a date; pass ISO 8601, such as 2026-03-03T14:30:00Z") from None
    return moment.replace(tzinfo=zone) if moment.tzinfo is None else moment.astimezone(zone)


def format_date(value: object, pattern: str = "", tz: str = "UTC") -> str:
    """Formats ``2026-03-03`` as ``Tuesday, 3 March 2026``, or by ``pattern`` (strftime), in the time zone ``tz``.

    Raises:
        ValueError: the value is not ISO 8601 or Unix seconds, or the zone is unknown.
    """
    moment = _moment(value, tz)
    return moment.strftime(pattern) if pattern else f"{moment:%A}, {moment.day} {moment:%B %Y}"


def format_time(value: object, pattern: str = "%H:%M", tz: str = "UTC") -> str:
    """Formats ``2026-03-03T14:30:00Z`` as ``14:30``, in the time zone ``tz``.

    ``14:30:00`` alone is a time in that zone.

    Raises:
        ValueError: as :func:`format_date`.
    """
    if isinstance(value, str) and ":" in value:  # "2026" would be 20:26
        with contextlib.suppress(ValueError):
            alone = time.fromisoformat(value)
            if alone.tzinfo is None:  # with an offset, the local time would depend on the day
                return alone.strftime(pattern)
    return _moment(value, tz).strftime(pattern)


def format_money(value: object, currency: str = "EUR") -> str:
    """Formats ``1234.5`` as ``€1,234.50``; with a currency that has no sign as ``1,234.50 CHF``.

    Raises:
        ValueError: the value is not a number, or the currency is not three capital letters.
    """
    if len(currency) != 3 or not currency.isalpha() or not currency.isupper():  # noqa: PLR2004  # ISO 4217
        raise ValueError(f"{currency!r} is not a currency; write EUR")
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        raise ValueError(f"{value!r} is not an amount of money") from None
    if not amount.is_finite():
        raise ValueError(f"{value!r} is not an amount of money")
    digits = f"{abs(amount):,.{0 if currency in _WHOLE else 2}f}"
    minus = "-" if amount < 0 else ""
    sign = _SIGNS.get(currency)
    return f"{minus}{sign}{digits}" if sign else f"{minus}{digits} {currency}"


def safe_link(value: object) -> str:
    """Returns ``value`` if a mail may link to it: http, https, mailto or tel; never ``javascript:``.

    Raises:
        ValueError: it is not such a link.
    """
    text = str(value).strip()
    if urlsplit(text).scheme not in _SCHEMES:
        raise ValueError(f"{text[:60]!r} is not a link; it starts with https://")
    return text


def safe_color(value: object) -> str:
    """Returns ``value`` if it is a colour in CSS, such as ``#2563eb`` or ``teal``.

    Raises:
        ValueError: it is not.
    """
    if not _COLOR.fullmatch(str(value)):
        raise ValueError(f"{str(value)[:60]!r} is not a colour; write #2563eb")
    return str(value)


def ink(color: object) -> str:
    """Returns white or near-black, the one that is legible on ``color``; white on a colour given by name.

    Raises:
        ValueError: it is not a colour.
    """
    text = safe_color(color)
    if not text.startswith("#"):
        return _WHITE
    digits = text[1:] if len(text) > _SHORT_COLOR else "".join(2 * digit for digit in text[1:])
    shares = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)  # noqa: PLR2004  # sRGB
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return _WHITE if 1.05 / (luminance + 0.05) >= 3 else _BLACK  # noqa: PLR2004  # WCAG 2.2, 1.4.11


FILTERS = {"date": format_date, "time": format_time, "money": format_money, "link": safe_link, "color": safe_color,
           "ink": ink}  # fmt: skip
"""The filters by the names that templates use."""
