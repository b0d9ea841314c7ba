"""Days of any time zone, cut from UTC days by quarter hours."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqjobs.processors.analytics.period import InvalidPeriod, Period, begin, best_step

ZONES = ("UTC", "Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu", "America/St_Johns", "Australia/Lord_Howe",
         "Pacific/Kiritimati", "Pacific/Pago_Pago")  # fmt: skip


@given(st.sampled_from(ZONES), st.dates(date(2024, 1, 1), date(2027, 1, 1)), st.integers(0, 5))
def test_every_quarter_hour_of_the_period_is_found_once_at_its_local_time(zone, first, days):
    period = Period.of(first, first + timedelta(days=days), zone)
    start, end = period.utc_days
    found = []
    for number in range((end - start).days + 1):
        day = start + timedelta(days=number)
        for quarter, local in [(q, local) for a, b, local in period.local_hours(day) for q in range(a, b)]:
            instant = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(minutes=15 * quarter)
            assert instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None, minute=0) == local
            found.append(instant)
    steps = (period.end - period.start) // timedelta(minutes=15)
    assert found == [period.start + timedelta(minutes=15 * number) for number in range(steps)]
    assert not period.clip(start - timedelta(days=1))
    assert not period.clip(end + timedelta(days=1))
    assert period.before.end == period.start
    assert period.before.days == period.days


def test_a_day_on_which_the_clock_is_changed():
    period = Period.of("2026-03-29", "2026-03-29", "Europe/Berlin")
    assert period.end - period.start == timedelta(hours=23)
    assert len(period.steps("hour")) == 23


def test_the_default_period_is_the_last_thirty_days():
    period = Period.of(None, None, "UTC", today=date(2026, 11, 23))
    assert (period.since, period.until, period.days) == (date(2026, 10, 25), date(2026, 11, 23), 30)


@pytest.mark.parametrize(
    ("days", "step"), [(1, "hour"), (2, "hour"), (3, "day"), (90, "day"), (365, "week"), (1000, "month")]
)
def test_the_series_stays_readable(days, step):
    assert best_step(Period.of(date(2020, 1, 1), date(2020, 1, 1) + timedelta(days=days - 1), "UTC")) == step


def test_steps_begin_where_people_expect():
    moment = datetime(2026, 11, 25, 14, 45)  # noqa: DTZ001
    assert begin(moment, "hour") == datetime(2026, 11, 25, 14)  # noqa: DTZ001
    assert begin(moment, "day") == date(2026, 11, 25)
    assert begin(moment, "week") == date(2026, 11, 23)
    assert begin(moment, "month") == date(2026, 11, 1)
    assert Period.of("2026-11-25", "2026-12-02", "UTC").steps("week") == [date(2026, 11, 23), date(2026, 11, 30)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("2026-11-23", "2026-11-22", "UTC"), "ends"),
        (("23.11.2026", None, "UTC"), "write it as 2026-11-23"),
        (("1900-01-01", None, "UTC"), "at most"),
        ((None, "0001-01-01", "UTC"), "at most"),
        ((None, None, "Mars/Olympus"), "unknown time zone"),
        ((None, None, "../etc/passwd"), "unknown time zone"),
        ((None, None, ""), "unknown time zone"),
    ],
)
def test_invalid_periods_are_named(arguments, message):
    with pytest.raises(InvalidPeriod, match=message):
        Period.of(*arguments)
