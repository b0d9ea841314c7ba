"""The analytics page: one report, with its arguments in the URL, and charts in SVG."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from flask import Blueprint, jsonify, render_template, request
from flask.typing import ResponseReturnValue

from rqjobs.processors.analytics import InvalidPeriod, Report, report
from rqjobs.processors.analytics.reporting import Point
from rqjobs.web.charts import WIDTH, line, nice_top, stacked_bars

blueprint = Blueprint("analytics", __name__, url_prefix="/analytics")

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_RANGES = (7, 30, 90, 365)
_LABELS, _LONG_LABELS = 5, 4  # the most labels below the series that do not overlap on a phone


@dataclass(frozen=True, kw_only=True)
class Tip:
    """The tooltip of one step of the series."""

    x: float
    width: float
    text: str


@blueprint.get("/")
def index() -> ResponseReturnValue:
    """Shows the page."""
    arguments = _arguments()
    try:
        found = report(**arguments)
    except InvalidPeriod as error:
        found = report()
        return render_template("analytics.html", **_page(found, arguments, str(error))), 422
    return render_template("analytics.html", **_page(found, arguments))


@blueprint.get("/report.json")
def as_json() -> ResponseReturnValue:
    """Returns the same report as JSON."""
    try:
        return jsonify(report(**_arguments()).as_dict())
    except InvalidPeriod as error:
        return jsonify({"error": str(error)}), 422


def _arguments() -> dict[str, Any]:
    given = {name: request.args.get(name, "").strip() or None for name in ("code", "user", "since", "until", "zone")}
    return {
        "qr_code_id": given["code"],
        "user_id": given["user"],
        "since": given["since"],
        "until": given["until"],
        "zone": given["zone"] or "UTC",
    }


def _page(found: Report, arguments: dict[str, Any], error: str | None = None) -> dict[str, Any]:
    points = found.series
    top = nice_top(max((max(point.scans, point.visitors) for point in points), default=0))
    step = WIDTH / len(points)
    return {
        "report": found,
        "question": arguments,
        "error": error and error[0].upper() + error[1:],
        "top": rounded(int(top), 100_000),
        "bars": stacked_bars([[point.scans for point in points]], top)[0],
        "visitors": line([point.visitors for point in points], top),
        "tips": [Tip(x=index * step, width=step, text=_tip(point, found.step)) for index, point in enumerate(points)],
        "labels": _labels([axis_label(point.start, found) for point in points]),
        "is_short": len(points) <= _LONG_LABELS,
        "busiest": max((max(row) for row in found.heatmap), default=0),
        "weekdays": WEEKDAYS,
        "ranges": _ranges(found),
        "breakdowns": [
            (title, shares)
            for title, shares in (
                ("Devices", found.devices),
                ("Systems", found.systems),
                ("Browsers", found.browsers),
                ("Countries", found.countries),
                ("Cities", found.cities),
            )
        ],
        "address": _address(found) | {"since": found.since.isoformat(), "until": found.until.isoformat()},
        "rounded": rounded,
        "percent": percent,
        "changed": changed,
    }


def _tip(point: Point, step: str) -> str:
    return f"{label(point.start, step)}: {point.scans:,} scans, {point.visitors:,} visitors"


def _labels(labels: list[str]) -> list[str]:
    most = _LABELS if max(map(len, labels)) <= len("24 Oct") else _LONG_LABELS
    if len(labels) <= most:
        return labels
    return [labels[round(index * (len(labels) - 1) / (most - 1))] for index in range(most)]


def _address(found: Report) -> dict[str, str]:
    """Returns the arguments of a report for its URL, without the period."""
    given = {"code": found.qr_code_id, "user": found.user_id, "zone": found.zone}
    return {name: value for name, value in given.items() if value}


def _ranges(found: Report) -> list[tuple[str, dict[str, str], bool]]:
    """Returns the links to other periods up to today: name, arguments, and whether it is the current one."""
    today = datetime.now(ZoneInfo(found.zone)).date()
    links = []
    for days in _RANGES:
        since = today - timedelta(days=days - 1)
        values = _address(found) | {"since": since.isoformat()}
        links.append((f"{days} days", values, found.since == since and found.until == today))
    return links


def label(start: date | datetime, step: str) -> str:
    """Returns the label of a point of a series.

    For example ``Sat 24 Oct 14:00``, ``24 Oct 2026``, ``week of 19 Oct 2026``, ``Oct 2026``.
    """
    if isinstance(start, datetime):
        return f"{start:%a} {start.day} {start:%b %H}:00"
    if step == "month":
        return f"{start:%b %Y}"
    return f"{'week of ' if step == 'week' else ''}{start.day} {start:%b %Y}"


def axis_label(start: date | datetime, found: Report) -> str:
    """Returns the short label of a point for the axis of the chart."""
    if isinstance(start, datetime):
        return f"{start:%a %H}:00"
    is_long = found.step == "month" or (found.step == "week" and found.since.year < found.until.year)
    return f"{start:%b %Y}" if is_long else f"{start.day} {start:%b}"


def rounded(value: int, most: int = 10_000_000) -> str:
    """Returns ``1,234,567``; from ``most`` on rounded, such as ``12.35 M`` or ``1.5 bn``."""
    for size, unit in ((1_000_000_000, "bn"), (1_000_000, "M"), (1_000, "k")):
        if value >= max(most, size):
            return f"{value / size:,.2f}".rstrip("0").rstrip(".") + f" {unit}"
    return f"{value:,}"


def percent(value: float | None) -> str:
    """Returns the share as ``12.5 %``; a dash for None."""
    return "\u2013" if value is None else f"{value * 100:.1f} %"


def changed(value: float | None) -> str:
    """Returns the change against the period before, as ``+12.5 %``."""
    return "nothing before" if value is None else f"{value * 100:+.1f} % on the period before"
