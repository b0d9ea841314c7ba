"""The queries of reports, in forms that both databases answer from the primary key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    Select,
    cast,
    func,
    literal_column,
    select,
    union_all,
)

from rqjobs.database.analytics import QUARTERS, counts
from rqjobs.processors.analytics.period import Period, Step, begin
from rqjobs.processors.analytics.tally import BREAKDOWNS

_DAY = timedelta(days=1)
_SERIES = ("scan", "visitor", "validation")
_QUARTERS = [str(quarter) for quarter in range(QUARTERS)]


def begin_reading(connection: Connection) -> None:
    """Makes all queries of the transaction read one snapshot, as they do on SQLite."""
    if connection.dialect.name == "postgresql":
        # The planner overestimates these queries: parallel workers and JIT would cost more than the queries.
        for setting in (
            "TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
            "LOCAL max_parallel_workers_per_gather = 0",
            "LOCAL jit = off",
        ):
            connection.exec_driver_sql(f"SET {setting}")


def by_time(
    connection: Connection, scope: str, period: Period, starts: Iterable[date | datetime], step: Step
) -> tuple[dict[date | datetime, list[int]], list[list[int]]]:
    """Returns scans, visitors and validations by step, and scans by weekday (Monday first) and hour, in local time."""
    series = {start: [0, 0, 0] for start in starts}
    heatmap = [[0] * 24 for _ in range(7)]
    days = _days(*period.utc_days)
    rows = connection.execute(_rows(scope, _SERIES, days, counts.c.day, counts.c.quarters))
    hours: dict[date, list[tuple[int, int, list[int], datetime]]] = {}
    for metric, day, quarters in rows:
        if day not in hours:
            hours[day] = [(first, end, series[begin(hour, step)], hour) for first, end, hour in period.local_hours(day)]
        column = _SERIES.index(metric)
        numbers = [quarters.get(quarter, 0) for quarter in _QUARTERS]
        for first, end, point, hour in hours[day]:
            number = sum(numbers[first:end])
            point[column] += number
            if column == 0:
                heatmap[hour.weekday()][hour.hour] += number
    return series, heatmap


def by_result(connection: Connection, scope: str, metrics: Sequence[str], period: Period) -> dict[tuple[str, str], int]:
    """Returns the sums of a period by metric and value, for metrics with few values."""
    parts = [_rows(scope, metrics, _days(*period.whole_days), counts.c.value, counts.c.total)]
    part = union_all(*parts, *_edges(connection, scope, metrics, period)).subquery()
    statement = select(part.c.metric, part.c.value, func.sum(part.c.total)).group_by(part.c.metric, part.c.value)
    return {(metric, value): int(number) for metric, value, number in connection.execute(statement) if number}


def by_value(connection: Connection, scope: str, metric: str, period: Period, top: int | None = None) -> dict[str, int]:
    """Returns the sums of a period by the values of one breakdown; only the ``top`` largest.

    Whole weeks are read from weekly sums where those exist; the days before and after are read one by one.
    """
    assert metric in BREAKDOWNS
    days = _days(*period.whole_days)
    mondays: list[date] = []
    if not scope.startswith("code:"):
        mondays = [day for day in days[:-6] if day.weekday() == 0]
    in_weeks = {monday + number * _DAY for monday in mondays for number in range(7)}
    parts = [
        _rows(scope, [metric], [day for day in days if day not in in_weeks], counts.c.value, counts.c.total),
        _rows(scope, [f"{metric}_week"], mondays, counts.c.value, counts.c.total),
    ]
    part = union_all(*parts, *_edges(connection, scope, [metric], period)).subquery()
    number = func.sum(part.c.total)
    statement = select(part.c.value, number).group_by(part.c.value)
    if top is not None:
        statement = statement.order_by(number.desc(), part.c.value).limit(top)
    return {value: int(number) for value, number in connection.execute(statement) if number}


def _rows(scope: str, metrics: Sequence[str], days: Sequence[date], *columns: ColumnElement[Any]) -> Select[Any]:
    return select(counts.c.metric, *columns).where(
        counts.c.day.in_(days), counts.c.scope == scope, counts.c.metric.in_(metrics)
    )


def _edges(connection: Connection, scope: str, metrics: Sequence[str], period: Period) -> list[Select[Any]]:
    """Returns the queries for UTC days that lie partly in the period; they sum only its quarter hours."""
    first, last = period.whole_days
    part = _part_on_postgres if connection.dialect.name == "postgresql" else _part
    return [
        _rows(scope, metrics, [day], counts.c.value, part(period.clip(day)).label("total"))
        for day in dict.fromkeys(period.utc_days)
        if not first <= day <= last
    ]


def _part(quarters: range) -> ColumnElement[int]:
    """Returns the sum of these quarter hours of a row."""
    item = func.json_each(counts.c.quarters).table_valued("key", "value")
    total = select(func.coalesce(func.sum(item.c.value), 0))
    return total.where(cast(item.c.key, Integer).between(quarters.start, quarters.stop - 1)).scalar_subquery()


def _part_on_postgres(quarters: range) -> ColumnElement[int]:
    # Summing the quarter hours in the range, or subtracting those outside it, is four times as fast as reading all.
    is_most = len(quarters) > QUARTERS // 2
    keys = [quarter for quarter in range(QUARTERS) if (quarter in quarters) != is_most]
    words = " + ".join(f"coalesce((quarters ->> '{key}')::bigint, 0)" for key in keys)
    some = literal_column(f"({words})", BigInteger)
    return counts.c.total - some if is_most else some


def _days(first: date, last: date) -> list[date]:
    return [first + number * _DAY for number in range((last - first).days + 1)]
