"""Reports: scans, visitors and validations by time, place and device, compared with the previous period."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Engine

from rqjobs.database import get_engine
from rqjobs.database.schema import ensure_schema
from rqjobs.jobs.analytics import QR_EVENTS
from rqjobs.processors.analytics.period import InvalidPeriod, Period, Step, best_step
from rqjobs.processors.analytics.queries import begin_reading, by_result, by_time, by_value
from rqjobs.processors.analytics.tally import ALL, code_scope, user_scope

SUCCESSFUL = ("", "valid", "validated", "success", "successful", "ok", "true", "accepted", "approved", "redeemed")
"""The results of validations that count as conversions; ``""`` is a validation without a result."""

_METRICS = (*QR_EVENTS, "bot", "visitor", "returning")
_MOST_STEPS = 1_000


@dataclass(frozen=True, kw_only=True)
class Totals:
    """The numbers of one period. Bots are counted only in ``bots``."""

    scans: int
    visitors: int
    """Visitors per day: a person with scans on two days counts twice, because the visitor's key changes at 0:00 UTC.
    Each is counted at the first scan of the day. Visitors without address and user agent are not counted."""
    returning: int
    """The number of visitors with more than one scan on the same day."""
    bots: int
    validations: int
    results: Mapping[str, int]
    """Validations by result; the key ``""`` has those without a result."""
    events: Mapping[str, int]
    """The other events, such as ``redemption``."""

    @property
    def conversion(self) -> float | None:
        """Successful validations divided by scans, 0.25 for one in four; None without scans."""
        good = sum(number for result, number in self.results.items() if result in SUCCESSFUL)
        return good / self.scans if self.scans else None

    @property
    def repeat_rate(self) -> float | None:
        """The share of visitors with more than one scan on the same day; None without visitors."""
        return self.returning / self.visitors if self.visitors else None


@dataclass(frozen=True, kw_only=True)
class Point:
    """One hour, day, week or month of a series, in local time."""

    start: date | datetime
    scans: int
    visitors: int
    validations: int


@dataclass(frozen=True, kw_only=True)
class Share:
    """One row of a breakdown of the scans."""

    name: str
    """The value, such as a country; empty for scans without it."""
    scans: int
    share: float
    """The part of all scans, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """One report. All days and hours are in the time zone ``zone``."""

    qr_code_id: str | None
    user_id: str | None
    zone: str
    since: date
    until: date
    """The last day, inclusive."""
    step: Step
    totals: Totals
    previous: Totals
    """The totals of the period of the same length before this one."""
    series: tuple[Point, ...]
    heatmap: tuple[tuple[int, ...], ...]
    """Scans by weekday (Monday first) and hour."""
    devices: tuple[Share, ...]
    systems: tuple[Share, ...]
    browsers: tuple[Share, ...]
    countries: tuple[Share, ...]
    cities: tuple[Share, ...]
    codes: tuple[Share, ...]
    """The codes with the most scans; empty in the report of one code."""

    @property
    def change(self) -> dict[str, float | None]:
        """The relative change to the previous period: 0.5 for an increase by half; None if that had a zero."""
        names = ("scans", "visitors", "validations", "bots", "conversion", "repeat_rate")
        return {name: _change(getattr(self.totals, name), getattr(self.previous, name)) for name in names}

    def as_dict(self) -> dict[str, Any]:
        """Returns the report as JSON types; days and times in ISO 8601."""

        def totals(numbers: Totals) -> dict[str, Any]:
            return asdict(numbers) | {"conversion": numbers.conversion, "repeat_rate": numbers.repeat_rate}

        return asdict(self) | {
            "since": self.since.isoformat(),
            "until": self.until.isoformat(),
            "totals": totals(self.totals),
            "previous": totals(self.previous),
            "change": self.change,
            "series": [asdict(point) | {"start": point.start.isoformat()} for point in self.series],
        }


def report(
    *,
    qr_code_id: str | None = None,
    user_id: str | None = None,
    since: date | str | None = None,
    until: date | str | None = None,
    zone: str = "UTC",
    step: Step | None = None,
    top: int = 10,
    engine: Engine | None = None,
) -> Report:
    """Makes the report of one code, of all codes of an owner, or of everything.

    It reads only the daily counts, so its cost does not depend on the number of events.

    Args:
        qr_code_id: the code; None for all.
        user_id: the owner; None for all.
        since: the first day, a date or ``2026-11-01``; None for a period of 30 days.
        until: the last day, inclusive; None for today.
        zone: the time zone of days and hours, such as ``Europe/Berlin``.
        step: the step of the series; None chooses one by the length of the period.
        top: the most rows of a breakdown.
        engine: another database than that of DATABASE_URL.

    Raises:
        InvalidPeriod: the period, the zone or the step is invalid.
        SchemaMismatch: the tables are missing.
        DatabaseUnavailable: the database does not answer.
    """
    if qr_code_id is not None and user_id is not None:
        raise InvalidPeriod("give one code or one owner, not both")
    period = Period.of(since, until, zone)
    step = step or best_step(period)
    starts = period.steps(step)
    if len(starts) > _MOST_STEPS:
        raise InvalidPeriod(
            f"{period.days} days are {len(starts)} {step}s, more than {_MOST_STEPS}: take a longer step"
        )
    scope = ALL
    if qr_code_id is not None:
        scope = code_scope(qr_code_id)
    elif user_id is not None:
        scope = user_scope(user_id)
    engine = engine or get_engine()
    ensure_schema(engine)
    with engine.connect().execution_options(sqlite_read=True) as connection:
        begin_reading(connection)
        series, heatmap = by_time(connection, scope, period, starts, step)
        totals = _totals(by_result(connection, scope, _METRICS, period))
        previous = _totals(by_result(connection, scope, _METRICS, period.before))
        clients = by_value(connection, scope, "client", period)
        places = by_value(connection, scope, "place", period)
        codes = {} if qr_code_id is not None else by_value(connection, scope, "code", period, top)
    by_client = {tuple(value.split("\t")): number for value, number in clients.items()}
    by_place = {tuple(value.split("\t")): number for value, number in places.items()}

    def shares(numbers: Mapping[str, int]) -> tuple[Share, ...]:
        ranked = sorted(numbers.items(), key=lambda item: (-item[1], item[0]))[:top]
        return tuple(Share(name=name, scans=number, share=number / totals.scans) for name, number in ranked)

    return Report(
        qr_code_id=qr_code_id,
        user_id=user_id,
        zone=zone,
        since=period.since,
        until=period.until,
        step=step,
        totals=totals,
        previous=previous,
        series=tuple(
            Point(start=start, scans=row[0], visitors=row[1], validations=row[2]) for start, row in series.items()
        ),
        heatmap=tuple(tuple(row) for row in heatmap),
        devices=shares(_by(by_client, 0)),
        systems=shares(_by(by_client, 1)),
        browsers=shares(_by(by_client, 2)),
        countries=shares(_by(by_place, 0)),
        cities=shares(_cities(by_place)),
        codes=shares(codes),
    )


def _totals(sums: Mapping[tuple[str, str], int]) -> Totals:
    by_metric: defaultdict[str, int] = defaultdict(int)
    for (metric, _), number in sums.items():
        by_metric[metric] += number
    return Totals(
        scans=by_metric["scan"],
        visitors=by_metric["visitor"],
        returning=by_metric["returning"],
        bots=by_metric["bot"],
        validations=by_metric["validation"],
        results={value: number for (metric, value), number in sums.items() if metric == "validation"},
        events={event: by_metric[event] for event in QR_EVENTS if event not in ("scan", "validation")},
    )


def _by(numbers: Mapping[tuple[str, ...], int], index: int) -> Counter[str]:
    found: Counter[str] = Counter()
    for parts, number in numbers.items():
        found[parts[index]] += number
    return found


def _cities(places: Mapping[tuple[str, ...], int]) -> Counter[str]:
    """Returns scans by city, as ``Berlin, DE``: cities of the same name in two countries are kept apart."""
    found: Counter[str] = Counter()
    for (country, city), number in places.items():
        found[f"{city}, {country}" if city and country else city] += number
    return found


def _change(now: float | None, before: float | None) -> float | None:
    return None if now is None or not before else now / before - 1
