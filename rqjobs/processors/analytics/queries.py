"""The questions to the counts, as SQL that both databases answer from a range of the primary key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta

from sqlalchemy import Connection, text

from rqjobs.database.analytics import QUARTER_COLUMNS, counts
from rqjobs.processors.analytics.period import Period, Step, begin
from rqjobs.processors.analytics.tally import BREAKDOWNS

_DAY = timedelta(days=1)
_WEEK = timedelta(days=7)
_SERIES = ("scan", "visitor", "validation")


def by_time(
    connection: Connection, scope: str, period: Period, starts: Iterable[date | datetime], step: Step
) -> tuple[dict[date | datetime, list[int]], list[list[int]]]:
    """Scans, visitors and validations by step, and scans by weekday (Monday first) and hour; local time."""
    series = {start: [0, 0, 0] for start in starts}
    heatmap = [[0] * 24 for _ in range(7)]
    first, last = period.utc_days
    rows = connection.execute(
        text(
            f"SELECT metric, day, {', '.join(QUARTER_COLUMNS)} FROM {counts.name} "  # noqa: S608  # our own columns
            f"WHERE scope = :scope AND metric IN {_listed(_SERIES)} AND day BETWEEN '{first}' AND '{last}'"
        ),
        {"scope": scope},
    )
    hours: dict[str, list[tuple[int, int, list[int], datetime]]] = {}
    for metric, raw_day, *numbers in rows:
        day = str(raw_day)
        if day not in hours:
            local = period.local_hours(date.fromisoformat(day))
            hours[day] = [(start, end, series[begin(hour, step)], hour) for start, end, hour in local]
        column = _SERIES.index(metric)
        for start, end, point, hour in hours[day]:
            if number := sum(filter(None, numbers[start:end])):
                point[column] += number
                if column == 0:
                    heatmap[hour.weekday()][hour.hour] += number
    return series, heatmap


def by_result(connection: Connection, scope: str, metrics: Sequence[str], period: Period) -> dict[tuple[str, str], int]:
    """The sums of a period by metric and value, of metrics that have few values."""
    first, last = period.whole_days
    condition = f"metric IN {_listed(metrics)}"
    parts = [_part(condition, "total", first, last), *_edges(condition, period)]
    statement = f"SELECT metric, value, sum(n) FROM ({' UNION ALL '.join(parts)}) AS part GROUP BY metric, value"  # noqa: S608
    rows = connection.execute(text(statement), {"scope": scope})
    return {(metric, value): int(number) for metric, value, number in rows if number}


def by_value(connection: Connection, scope: str, metric: str, period: Period, top: int | None = None) -> dict[str, int]:
    """The sums of a period by the values of one breakdown; the ``top`` largest.

    Whole weeks are read as such where they are kept, the days before and after them one by one.
    """
    assert metric in BREAKDOWNS
    first, last = period.whole_days
    monday = first + (-first.weekday() % 7) * _DAY
    after = last + _DAY - ((last + _DAY).weekday() % 7) * _DAY
    condition = f"metric = '{metric}'"
    if scope.startswith("code:") or after <= monday:
        parts = [_part(condition, "total", first, last)]
    else:
        parts = [
            _part(condition, "total", first, monday - _DAY),
            _part(f"metric = '{metric}_week'", "total", monday, after - _WEEK),
            _part(condition, "total", after, last),
        ]
    parts += _edges(condition, period)
    limit = "ORDER BY 2 DESC, value LIMIT :top" if top is not None else ""
    statement = f"SELECT value, sum(n) FROM ({' UNION ALL '.join(parts)}) AS part GROUP BY value {limit}"  # noqa: S608
    rows = connection.execute(text(statement), {"scope": scope} | ({} if top is None else {"top": top}))
    return {value: int(number) for value, number in rows if number}


def _edges(condition: str, period: Period) -> list[str]:
    """The UTC days that lie in the period in part: those of their quarter hours that do."""
    first, last = period.whole_days
    parts = []
    for day in dict.fromkeys(period.utc_days):
        if not first <= day <= last:
            columns = (f"coalesce({QUARTER_COLUMNS[quarter]}, 0)" for quarter in period.clip(day))
            parts.append(_part(condition, " + ".join(columns), day, day))
    return parts


def _part(condition: str, number: str, first: date, last: date) -> str:
    # The dates are date objects of ours; written out, the database sees how narrow the range is.
    return (
        f"SELECT metric, value, {number} AS n FROM {counts.name} "  # noqa: S608  # names and dates of our own
        f"WHERE scope = :scope AND {condition} AND day BETWEEN '{first}' AND '{last}'"
    )


def _listed(names: Iterable[str]) -> str:
    return f"({', '.join(repr(name) for name in names)})"
