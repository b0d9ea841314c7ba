"""Periods of whole days in a time zone, mapped to the UTC days and quarter hours of the counts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from rqjobs.database.analytics import QUARTERS
from rqjobs.errors import RQJobsError

Step = Literal["hour", "day", "week", "month"]

_QUARTER = timedelta(minutes=15)
_HOUR = timedelta(hours=1)
_LONGEST = 366 * 10


class InvalidPeriod(RQJobsError, ValueError):
    """A report cannot be made for this period or time zone; the message names the fix."""


@dataclass(frozen=True)
class Period:
    """Whole days of a time zone, from midnight of the first day to midnight after the last."""

    since: date
    """The first day."""
    until: date
    """The last day, inclusive."""
    zone: ZoneInfo

    @classmethod
    def of(cls, since: date | str | None, until: date | str | None, zone: str, *, today: date | None = None) -> Period:
        """Returns the period of a report; by default the last 30 days, including today.

        Raises:
            InvalidPeriod: a day, their order or the time zone is invalid.
        """
        try:
            tz = ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise InvalidPeriod(f"unknown time zone {zone!r}; write one such as UTC or Europe/Berlin") from None
        last = _day(until) or (today or datetime.now(tz).date())
        first = _day(since) or last - min(timedelta(days=29), last - date.min)  # the year is checked below
        if first > last:
            raise InvalidPeriod(f"the period ends ({last}) before it begins ({first})")
        if (last - first).days >= _LONGEST or not 1970 < first.year <= last.year < 2200:  # noqa: PLR2004
            raise InvalidPeriod(f"a period has at most {_LONGEST} days, between the years 1971 and 2199")
        return cls(first, last, tz)

    @property
    def days(self) -> int:
        """The number of days."""
        return (self.until - self.since).days + 1

    @property
    def before(self) -> Period:
        """The period of the same length that ends one day earlier than this one begins."""
        return Period(self.since - timedelta(days=self.days), self.since - timedelta(days=1), self.zone)

    @property
    def start(self) -> datetime:
        """The first instant, in UTC."""
        return _midnight(self.since, self.zone)

    @property
    def end(self) -> datetime:
        """The instant at which the period is over, in UTC."""
        return _midnight(self.until + timedelta(days=1), self.zone)

    @property
    def whole_days(self) -> tuple[date, date]:
        """The first and the last UTC day that lie completely in the period; the last may be before the first."""
        first, last = self.utc_days
        return (
            first if len(self.clip(first)) == QUARTERS else first + timedelta(days=1),
            last if len(self.clip(last)) == QUARTERS else last - timedelta(days=1),
        )

    def clip(self, day: date) -> range:
        """Returns the quarter hours of the UTC day ``day`` that belong to the period."""
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
        first = max(0, (self.start - midnight) // _QUARTER)
        last = min(QUARTERS, (self.end - midnight) // _QUARTER)
        return range(first, max(first, last))

    @property
    def utc_days(self) -> tuple[date, date]:
        """The first and the last UTC day that overlap the period."""
        return self.start.date(), (self.end - timedelta(microseconds=1)).date()

    def local_hours(self, day: date) -> list[tuple[int, int, datetime]]:
        """Returns the local hours in the UTC day ``day``: first quarter hour, end, beginning of the local hour."""
        quarters = self.clip(day)
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)

        def local(quarter: int) -> datetime:
            return (midnight + _QUARTER * quarter).astimezone(self.zone)

        start = local(quarters.start)
        if start.utcoffset() != local(quarters.stop).utcoffset():  # clocks change on this day, possibly by half an hour
            return [(quarter, quarter + 1, local(quarter).replace(minute=0, tzinfo=None)) for quarter in quarters]
        bounds = [quarters.start, *range(quarters.start + 4 - start.minute // 15, quarters.stop, 4), quarters.stop]
        hour = start.replace(minute=0, tzinfo=None)
        return [(first, end, hour + number * _HOUR) for number, (first, end) in enumerate(pairwise(bounds))]

    def steps(self, step: Step) -> list[date | datetime]:
        """Returns the beginnings of all hours, days, weeks or months that overlap the period, in order."""
        if step == "hour":
            first, last = self.utc_days
            utc_days = (first + timedelta(days=number) for number in range((last - first).days + 1))
            hours = (local for day in utc_days for _, _, local in self.local_hours(day))
            return list(dict.fromkeys(hours))
        days = (self.since + timedelta(days=number) for number in range(self.days))
        return list(dict.fromkeys(begin(datetime(day.year, day.month, day.day), step) for day in days))  # noqa: DTZ001  # local


def begin(local: datetime, step: Step) -> date | datetime:
    """Returns the beginning of the hour, day, week (Monday) or month of the local time."""
    if step == "hour":
        return local.replace(minute=0)
    day = local.date()
    if step == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if step == "month" else day


def best_step(period: Period) -> Step:
    """Returns the step for a readable series: hours up to two days, days up to 100, weeks up to 750, else months."""
    for step, longest in (("hour", 2), ("day", 100), ("week", 750)):
        if period.days <= longest:
            return step  # type: ignore[return-value]  # each is a Step
    return "month"


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def _day(value: date | str | None) -> date | None:
    if value is None or (isinstance(value, date) and not isinstance(value, datetime)):
        return value
    try:
        if isinstance(value, str):
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise InvalidPeriod(f"{value!s:.40} is not a day; write it as 2026-11-23")
