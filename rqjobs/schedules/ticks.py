"""The ticks of a schedule: cron expressions in a time zone, with daylight saving as in Debian's cron, and intervals.

Debian's cron(8): a job at a fixed time inside a gap runs once, at the end of the gap; one inside a doubled hour runs
once, the first time. A job whose minute or hour begins with ``*`` follows the clock: it has no tick in the gap, and
ticks in both of the doubled hours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import croniter

_MINUTES_AND_HOURS = re.compile(r"[\d*,/-]+")
_ALIASES = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
_SLACK = timedelta(hours=3)  # the largest change of a clock that Debian's cron treats as daylight saving
_YEARS = 30  # years searched for a tick: 29 February on a given weekday comes at least every 28 years
_LONGEST = 366 * 86_400  # the most seconds of an interval


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression in a time zone."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int | str]
    months: frozenset[int]
    weekdays: frozenset[int]
    nth: tuple[tuple[int, frozenset[int | str]], ...]
    """Weekdays with only some ticks in a month: 5#2, L5."""
    both: bool
    """Whether day and weekday must both match (one of them begins with ``*``); otherwise one is enough."""
    fixed: bool
    """Whether it ticks at fixed times of the day: neither minute nor hour begins with ``*``."""
    zone: ZoneInfo

    def after(self, moment: int) -> int | None:
        """Returns the first tick after ``moment``, both in Unix seconds; None if there is none within 30 years."""
        here = datetime.fromtimestamp(moment, self.zone)
        local = here.replace(tzinfo=None)
        offsets = {datetime.fromtimestamp(moment + hours * 3600, self.zone).utcoffset() for hours in (-36, 0, 36)}
        if len(offsets) == 1 and (tick := self._on_plain_day(moment, local)) is not None:
            return tick
        for day in self._days(local.date() - timedelta(days=1)):
            found: list[int] = []
            last = 24
            for hour in self.hours:
                if hour > last:  # even with a doubled hour no later one can be earlier
                    break
                start = datetime(day.year, day.month, day.day, hour)  # noqa: DTZ001
                if start + _SLACK + timedelta(hours=1) < local:
                    continue
                ticks = [tick for minute in self.minutes for tick in self._instants(start.replace(minute=minute))]
                later = [tick for tick in ticks if tick > moment]
                if later and not found:
                    last = hour + 2
                found += later
            if found:
                return min(found)
        return None

    def _on_plain_day(self, moment: int, local: datetime) -> int | None:
        """Returns the next tick of today if the clocks do not change around this day: 100 times as fast."""
        if local.month in self.months and self._matches(local.date()):
            now = local.hour * 3600 + local.minute * 60 + local.second
            for hour in self.hours:
                if hour >= local.hour:
                    for minute in self.minutes:
                        if (ahead := hour * 3600 + minute * 60 - now) > 0:
                            return moment + ahead
        return None

    def _days(self, day: date) -> Iterator[date]:
        final = day.replace(year=day.year + _YEARS, day=min(day.day, 28))
        while day < final:
            if day.month not in self.months:
                day = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
                continue
            if self._matches(day):
                yield day
            day += timedelta(days=1)

    def _matches(self, day: date) -> bool:
        in_month = day.day in self.days or ("l" in self.days and (day + timedelta(days=1)).day == 1)
        weekday = day.isoweekday() % 7
        in_week = weekday in self.weekdays
        for which, wanted in self.nth:
            if which == weekday:
                is_last = (day + timedelta(days=7)).month != day.month
                in_week = (day.day + 6) // 7 in wanted or ("l" in wanted and is_last)
        return (in_month and in_week) if self.both else (in_month or in_week)

    def _instants(self, local: datetime) -> list[int]:
        """Returns when clocks of the zone show ``local``: once, twice in a doubled hour; in a gap the gap's end."""
        instants = []
        for fold in (0, 1):
            instant = int(local.replace(tzinfo=self.zone, fold=fold).timestamp())
            if (
                datetime.fromtimestamp(instant, self.zone).replace(tzinfo=None, fold=0) == local
                and instant not in instants
            ):
                instants.append(instant)
        if not self.fixed:
            return instants
        while not instants:  # in a gap
            local += timedelta(minutes=1)
            instants = self._instants(local)
        return instants[:1]


@dataclass(frozen=True, slots=True)
class Every:
    """An interval of whole seconds, counted from ``anchor``."""

    seconds: int
    anchor: int
    """Unix seconds. With 0, the start of Unix time, ``1h`` ticks on the hour (UTC)."""

    def after(self, moment: int) -> int | None:
        """Returns the first tick after ``moment``, both in Unix seconds."""
        return self.anchor + ((moment - self.anchor) // self.seconds + 1) * self.seconds


@dataclass(frozen=True, slots=True)
class Timing:
    """The ticks of a schedule between its start and its end, both inclusive."""

    rule: Cron | Every
    starts: int | None
    ends: int | None

    def after(self, moment: int) -> int | None:
        """Returns the first tick after ``moment``, both in Unix seconds; None if there are no more."""
        if self.starts is not None:
            moment = max(moment, self.starts - 1)
        tick = self.rule.after(moment)
        return None if tick is None or (self.ends is not None and tick > self.ends) else tick

    def between(self, first: int, until: int, most: int) -> list[int]:
        """Returns the last ticks, at most ``most``, after ``first`` and not after ``until``."""
        span = 60
        while True:
            start = max(first, until - span)
            found = []
            tick = self.after(start)
            while tick is not None and tick <= until:
                found.append(tick)
                tick = self.after(tick)
            if len(found) >= most or start <= first:
                return found[-most:]
            span *= 8


@lru_cache(20_000)
def timing(cron: str | None, every: float | None, timezone: str, starts: float | None, ends: float | None) -> Timing:
    """Returns the timing of a schedule; ``every`` is in seconds, ``starts`` and ``ends`` in Unix seconds.

    Raises:
        ValueError: the expression, the zone or the interval is malformed, or there is never a tick.
    """
    first = None if starts is None else int(-(-starts // 1))
    last = None if ends is None else int(ends)
    if cron is not None:
        return Timing(parse_cron(cron, timezone), first, last)
    assert every is not None
    if every != int(every) or not 1 <= every <= _LONGEST:
        raise ValueError("every: an interval is 1 s to 366 days, in whole seconds")
    return Timing(Every(int(every), first or 0), first, last)


def parse_cron(text: str, timezone: str) -> Cron:
    """Parses a cron expression in an IANA time zone.

    It has the fields minute, hour, day, month and weekday, or is an alias such as ``@daily``.

    Raises:
        ValueError: it is invalid; the message names the fault.
    """
    if not isinstance(text, str):
        raise ValueError(f'cron: {text!r} is not text such as "0 3 * * *"')  # noqa: TRY004
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        raise ValueError(f"timezone: {timezone!r} is no IANA time zone such as Europe/Berlin") from None
    parts = text.split()
    alias = text.strip().lower() in _ALIASES
    if not alias and len(parts) != 5:  # noqa: PLR2004
        raise ValueError(
            f'cron: {text!r} has {len(parts)} fields; write five: minute, hour, day, month, weekday, as in "0 3 * * *"'
        )
    if not alias and not all(_MINUTES_AND_HOURS.fullmatch(part) for part in parts[:2]):
        raise ValueError(f"cron: {text!r}: minute and hour are numbers, lists, ranges and steps")
    try:
        fields, nth = croniter.expand(text.strip(), strict=not alias)
    except (ValueError, KeyError, IndexError) as error:
        raise ValueError(f"cron: {text!r}: {' '.join(str(error).split()).rstrip('.')}") from None
    minutes, hours, days, months, weekdays = (
        range(low, high) if field == ["*"] else field
        for field, (low, high) in zip(fields, ((0, 60), (0, 24), (1, 32), (1, 13), (0, 7)), strict=True)
    )
    written = parts if len(parts) == 5 else ["0", "0", *("*" if field == ["*"] else "1" for field in fields[2:])]  # noqa: PLR2004
    if alias and fields[1] == ["*"]:
        written[1] = "*"
    found = Cron(
        tuple(sorted(set(minutes))),
        tuple(sorted(set(hours))),
        frozenset(days),
        frozenset(months),
        frozenset(weekdays),
        tuple((day, frozenset(which)) for day, which in nth.items()),
        both=written[2][0] in "*?" or written[4][0] in "*?",
        fixed=not written[0].startswith("*") and not written[1].startswith("*"),
        zone=zone,
    )
    if found.after(int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())) is None:
        raise ValueError(f"cron: {text!r} never ticks")
    return found
