"""The analytics page: one report, its question in the address, its charts drawn here as SVG."""

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
_LABELS = 5  # below the series: more of them run into each other on a phone


@dataclass(frozen=True, kw_only=True)
class Tip:
    """One step of the series, as it says what it is when it is pointed at."""

    x: float
    width: float
    text: str


@blueprint.get("/")
def index() -> ResponseReturnValue:
    """The page."""
    question = _question()
    try:
        found = report(**question)
    except InvalidPeriod as error:
        found = report()
        return render_template("analytics.html", **_page(found, question, str(error))), 422
    return render_template("analytics.html", **_page(found, question))


@blueprint.get("/report.json")
def as_json() -> ResponseReturnValue:
    """The same report for programs."""
    try:
        return jsonify(report(**_question()).as_dict())
    except InvalidPeriod as error:
        return jsonify({"error": str(error)}), 422


def _question() -> dict[str, Any]:
    given = {name: request.args.get(name, "").strip() or None for name in ("code", "user", "since", "until", "zone")}
    return {
        "qr_code_id": given["code"],
        "user_id": given["user"],
        "since": given["since"],
        "until": given["until"],
        "zone": given["zone"] or "UTC",
    }


def _page(found: Report, question: dict[str, Any], error: str | None = None) -> dict[str, Any]:
    points = found.series
    top = nice_top(max((max(point.scans, point.visitors) for point in points), default=0))
    step = WIDTH / len(points)
    return {
        "report": found,
        "question": question,
        "error": error,
        "top": top,
        "bars": stacked_bars([[point.scans for point in points]], top)[0],
        "visitors": line([point.visitors for point in points], top),
        "tips": [Tip(x=index * step, width=step, text=_tip(point)) for index, point in enumerate(points)],
        "labels": _labels([label(point.start) for point in points]),
        "busiest": max((max(row) for row in found.heatmap), default=0),
        "weekdays": WEEKDAYS,
        "ranges": _ranges(found, question),
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
        "label": label,
        "percent": percent,
        "changed": changed,
    }


def _tip(point: Point) -> str:
    return f"{label(point.start)}: {point.scans:,} scans, {point.visitors:,} visitors"


def _labels(words: list[str]) -> list[str]:
    if len(words) <= _LABELS:
        return words
    return [words[round(index * (len(words) - 1) / (_LABELS - 1))] for index in range(_LABELS)]


def _ranges(found: Report, question: dict[str, Any]) -> list[tuple[str, dict[str, str], bool]]:
    """The links to other periods up to today: name, address, and whether it is this one."""
    today = datetime.now(ZoneInfo(found.zone)).date()
    same = {"code": question["qr_code_id"], "user": question["user_id"], "zone": question["zone"]}
    links = []
    for days in _RANGES:
        since = today - timedelta(days=days - 1)
        values = {name: value for name, value in same.items() if value} | {"since": since.isoformat()}
        links.append((f"{days} days", values, found.since == since and found.until == today))
    return links


def label(start: date | datetime) -> str:
    """``23 Nov``, or ``14:00`` for an hour."""
    return f"{start:%a %H}:00" if isinstance(start, datetime) else f"{start.day} {start:%b}"


def percent(value: float | None) -> str:
    """``12.5 %``; a dash for nothing."""
    return "\u2013" if value is None else f"{value * 100:.1f} %"


def changed(value: float | None) -> str:
    """``+12.5 %`` against the period before."""
    return "nothing before" if value is None else f"{value * 100:+.1f} % on the period before"
