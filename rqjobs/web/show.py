"""Filters for the templates, which format values."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Flask
from markupsafe import Markup

from rqjobs.broker.rq_schema import UNREADABLE, with_zone
from rqjobs.config.durations import spell

_MOVED_WITHIN = 3.0  # seconds; RQ's own scheduler runs once a second

NOTHING = "\u2013"
"""Shown for a missing value: a dash."""


def register(app: Flask) -> None:
    """Adds the filters to the templates of ``app``."""
    app.jinja_env.filters.update(number=number, ago=ago, span=span, pretty=pretty, seconds=seconds, clock=clock)


def number(value: float | None) -> str:
    """Returns ``1,234,567``; a dash for None."""
    return NOTHING if value is None else f"{value:,.0f}"


def seconds(value: float | timedelta | None) -> str:
    """Returns a short time: ``4 ms``, ``1.2 s``, ``3m 5s``; a dash for None."""
    if value is None:
        return NOTHING
    try:
        value = value if isinstance(value, timedelta) else timedelta(seconds=value)
    except (ValueError, OverflowError):
        return NOTHING
    short = timedelta(seconds=1) <= value < timedelta(seconds=60)
    return f"{value.total_seconds():.1f} s" if short else spell(value)


def span(value: timedelta | None) -> str:
    """Returns a long time: ``3m``; a dash for None."""
    if value is None:
        return NOTHING
    return "<1s" if value < timedelta(seconds=1) else spell(value)


def ago(value: datetime | float | None) -> Markup | str:
    """Returns ``3m 5s ago`` or ``in 2h``, with the exact time as a tooltip."""
    moment = _moment(value)
    if moment is None:
        return NOTHING
    distance = datetime.now(UTC) - moment
    if abs(distance) < timedelta(seconds=1):
        text = "now"
    else:
        text = f"{spell(distance)} ago" if distance > timedelta() else f"in {spell(-distance)}"
    return Markup('<time datetime="{0}" title="{0}">{1}</time>').format(moment.isoformat(timespec="seconds"), text)


def is_overdue(due: float) -> bool:
    """Returns whether a job that was due at ``due`` should have begun by now."""
    return due < time.time() - _MOVED_WITHIN


def clock(value: datetime | float | None) -> str:
    """Returns the time in the format of the logs: ``2026-11-24 06:29:43 UTC``."""
    moment = _moment(value)
    return NOTHING if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def pretty(value: Any) -> str:
    """Returns indented JSON."""
    try:
        return json.dumps(value, indent=2, ensure_ascii=False, default=str)
    except (ValueError, TypeError, RecursionError):
        return UNREADABLE


def _moment(value: datetime | float | None) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, datetime):
        return with_zone(value)
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):  # a forged time outside the range of dates
        return None
