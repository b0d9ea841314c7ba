"""When schedules tick: daylight saving as Debian's cron(8) has it, intervals, catching up, and faults."""

from __future__ import annotations

import random
from datetime import datetime

import pytest

from rqjobs.schedules.leader import Step, plan
from rqjobs.schedules.ticks import Cron, parse_cron, timing

# Berlin: 2027-03-28 02:00 -> 03:00 and 2027-10-31 03:00 -> 02:00.
# New York: 2027-03-14 02:00 -> 03:00 and 2027-11-07 02:00 -> 01:00.
# Santiago: 2027-09-05 00:00 -> 01:00 and 2027-04-03 24:00 -> 23:00.
# Lord Howe: 2027-10-03 02:00 -> 02:30 and 2027-04-04 02:00 -> 01:30. Kathmandu: +05:45, no change.
BERLIN, NEW_YORK, SANTIAGO = "Europe/Berlin", "America/New_York", "America/Santiago"
LORD_HOWE, KATHMANDU = "Australia/Lord_Howe", "Asia/Kathmandu"
CASES = [
    # A gap: a fixed time runs once, at the end of it.
    (BERLIN, "30 2 * * *", "2027-03-27T12:00+01:00", ["28 03:00+0200", "29 02:30+0200"]),
    (BERLIN, "0 2 * * *", "2027-03-27T12:00+01:00", ["28 03:00+0200", "29 02:00+0200"]),
    (BERLIN, "0,30 2 * * *", "2027-03-27T12:00+01:00", ["28 03:00+0200", "29 02:00+0200"]),
    (BERLIN, "0 2,3 * * *", "2027-03-28T01:00+01:00", ["28 03:00+0200", "29 02:00+0200"]),
    (BERLIN, "59 1 * * *", "2027-03-27T12:00+01:00", ["28 01:59+0100", "29 01:59+0200"]),
    (BERLIN, "0 3 * * *", "2027-03-27T12:00+01:00", ["28 03:00+0200", "29 03:00+0200"]),
    (BERLIN, "30 2 28 3 *", "2027-03-27T12:00+01:00", ["28 03:00+0200"]),
    (BERLIN, "30 2 * * sun", "2027-03-27T12:00+01:00", ["28 03:00+0200", "04 02:30+0200"]),
    (NEW_YORK, "30 2 * * *", "2027-03-13T12:00-05:00", ["14 03:00-0400", "15 02:30-0400"]),
    (NEW_YORK, "15 1 * * *", "2027-03-13T12:00-05:00", ["14 01:15-0500", "15 01:15-0400"]),
    (SANTIAGO, "0 0 * * *", "2027-09-04T12:00-04:00", ["05 01:00-0300", "06 00:00-0300"]),
    (SANTIAGO, "30 0 * * *", "2027-09-04T12:00-04:00", ["05 01:00-0300", "06 00:30-0300"]),
    (SANTIAGO, "@daily", "2027-09-04T12:00-04:00", ["05 01:00-0300", "06 00:00-0300"]),
    (LORD_HOWE, "15 2 * * *", "2027-10-02T12:00+10:30", ["03 02:30+1100", "04 02:15+1100"]),
    (LORD_HOWE, "45 2 * * *", "2027-10-02T12:00+10:30", ["03 02:45+1100", "04 02:45+1100"]),
    # A gap: what follows the clock has no tick in it.
    (BERLIN, "*/15 2 * * *", "2027-03-27T12:00+01:00", ["29 02:00+0200", "29 02:15+0200"]),
    (BERLIN, "*/30 * * * *", "2027-03-28T01:00+01:00", ["28 01:30+0100", "28 03:00+0200", "28 03:30+0200"]),
    (BERLIN, "0 * * * *", "2027-03-28T00:30+01:00", ["28 01:00+0100", "28 03:00+0200", "28 04:00+0200"]),
    (BERLIN, "30 * * * *", "2027-03-28T01:00+01:00", ["28 01:30+0100", "28 03:30+0200"]),
    (NEW_YORK, "*/20 * * * *", "2027-03-14T01:30-05:00", ["14 01:40-0500", "14 03:00-0400"]),
    (SANTIAGO, "0 * * * *", "2027-09-04T22:30-04:00", ["04 23:00-0400", "05 01:00-0300"]),
    (LORD_HOWE, "*/15 * * * *", "2027-10-03T01:30+10:30", ["03 01:45+1030", "03 02:30+1100", "03 02:45+1100"]),
    (LORD_HOWE, "*/30 2 * * *", "2027-10-02T12:00+10:30", ["03 02:30+1100", "04 02:00+1100"]),
    (LORD_HOWE, "0 * * * *", "2027-10-03T00:30+10:30", ["03 01:00+1030", "03 03:00+1100"]),
    # A doubled hour: a fixed time runs once, the first time.
    (BERLIN, "30 2 * * *", "2027-10-30T12:00+02:00", ["31 02:30+0200", "01 02:30+0100"]),
    (BERLIN, "0 2 * * *", "2027-10-30T12:00+02:00", ["31 02:00+0200", "01 02:00+0100"]),
    (BERLIN, "0 3 * * *", "2027-10-30T12:00+02:00", ["31 03:00+0100", "01 03:00+0100"]),
    (BERLIN, "0,30 2 * * *", "2027-10-30T12:00+02:00", ["31 02:00+0200", "31 02:30+0200", "01 02:00+0100"]),
    (BERLIN, "30 2 * * *", "2027-10-31T02:15+01:00", ["01 02:30+0100"]),
    (NEW_YORK, "30 1 * * *", "2027-11-06T12:00-04:00", ["07 01:30-0400", "08 01:30-0500"]),
    (SANTIAGO, "30 23 * * *", "2027-04-03T12:00-03:00", ["03 23:30-0300", "04 23:30-0400"]),
    (LORD_HOWE, "45 1 * * *", "2027-04-03T12:00+11:00", ["04 01:45+1100", "05 01:45+1030"]),
    # A doubled hour: what follows the clock ticks in both.
    (BERLIN, "*/30 2 * * *", "2027-10-31T00:00+02:00",
     ["31 02:00+0200", "31 02:30+0200", "31 02:00+0100", "31 02:30+0100", "01 02:00+0100"]),
    (BERLIN, "0 * * * *", "2027-10-31T01:30+02:00", ["31 02:00+0200", "31 02:00+0100", "31 03:00+0100"]),
    (NEW_YORK, "*/30 * * * *", "2027-11-07T00:45-04:00",
     ["07 01:00-0400", "07 01:30-0400", "07 01:00-0500", "07 01:30-0500", "07 02:00-0500"]),
    (SANTIAGO, "*/30 * * * *", "2027-04-03T22:45-03:00",
     ["03 23:00-0300", "03 23:30-0300", "03 23:00-0400", "03 23:30-0400", "04 00:00-0400"]),
    (LORD_HOWE, "*/15 * * * *", "2027-04-04T01:20+11:00",
     ["04 01:30+1100", "04 01:45+1100", "04 01:30+1030", "04 01:45+1030", "04 02:00+1030"]),
    # Zones and fields.
    (KATHMANDU, "0 3 * * *", "2027-03-27T12:00+05:45", ["28 03:00+0545", "29 03:00+0545"]),
    (KATHMANDU, "*/15 * * * *", "2027-03-28T01:50+05:45", ["28 02:00+0545", "28 02:15+0545"]),
    (KATHMANDU, "0 0 1 1 *", "2027-03-28T01:50+05:45", ["01 00:00+0545"]),
    (BERLIN, "0 3 29 2 *", "2027-01-01T00:00+01:00", ["29 03:00+0100", "29 03:00+0100"]),
    (BERLIN, "0 3 L * *", "2027-02-01T00:00+01:00", ["28 03:00+0100", "31 03:00+0200"]),
    (BERLIN, "0 3 * * 5#2", "2027-02-01T00:00+01:00", ["12 03:00+0100", "12 03:00+0100"]),
    (BERLIN, "0 3 13 * fri", "2027-02-01T00:00+01:00", ["05 03:00+0100", "12 03:00+0100", "13 03:00+0100"]),
    ("UTC", "0 3 * * 7", "2027-02-01T00:00+00:00", ["07 03:00+0000", "14 03:00+0000"]),
]  # fmt: skip


@pytest.mark.parametrize(("zone", "cron", "after", "expected"), CASES, ids=[f"{c[0]} {c[1]} {c[2]}" for c in CASES])
def test_ticks_over_daylight_saving(zone: str, cron: str, after: str, expected: list[str]) -> None:
    rule = parse_cron(cron, zone)
    moment, found = int(datetime.fromisoformat(after).timestamp()), []
    for _ in expected:
        tick = rule.after(moment)
        assert tick is not None
        assert tick > moment
        moment = tick
        found.append(f"{datetime.fromtimestamp(tick, rule.zone):%d %H:%M%z}")
    assert found == expected


def by_counting(rule: Cron, moment: int) -> int:
    """The next tick of an expression that follows the clock: every minute is looked at."""
    while True:
        moment = moment // 60 * 60 + 60
        local = datetime.fromtimestamp(moment, rule.zone)
        if local.hour in rule.hours and local.minute in rule.minutes:
            return moment


@pytest.mark.parametrize("zone", [BERLIN, SANTIAGO, LORD_HOWE, "Antarctica/Troll"])
@pytest.mark.parametrize("cron", ["*/15 * * * *", "*/30 2 * * *", "0 */2 * * *", "*/7 0,1,2,23 * * *"])
def test_ticks_are_those_that_counting_minutes_finds(zone: str, cron: str) -> None:
    rule, chance = parse_cron(cron, zone), random.Random(cron + zone)
    for day in ("2027-03-28", "2027-04-04", "2027-09-05", "2027-10-03", "2027-10-31"):
        for _ in range(5):
            moment = int(datetime.fromisoformat(f"{day}T00:00+00:00").timestamp()) + chance.randrange(-50_000, 50_000)
            assert rule.after(moment) == by_counting(rule, moment)


@pytest.mark.parametrize(
    ("cron", "zone", "fault"),
    [
        ("0 3 * *", "UTC", "has 4 fields; write five"),
        ("0 0 3 * * *", "UTC", "has 6 fields; write five"),
        ("60 3 * * *", "UTC", "out of range"),
        ("r 3 * * *", "UTC", "minute and hour are numbers"),
        ("0 3 31 2 *", "UTC", "can never occur"),
        ("0 3 * * someday", "UTC", "not acceptable"),
        ("@reboot", "UTC", "has 1 fields"),
        ("0 3 * * *", "Europe/Belin", "'Europe/Belin' is no IANA time zone"),
        ("0 3 * * *", "../etc/passwd", "is no IANA time zone"),
    ],
)
def test_faults_of_an_expression_are_named(cron: str, zone: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        parse_cron(cron, zone)


def test_an_interval_counts_from_its_start_or_from_1970() -> None:
    assert timing(None, 300, "UTC", None, None).after(1_000_000_001) == 1_000_000_200
    from_start = timing(None, 300, "UTC", 1_000_000_007.5, 1_000_000_400)
    assert from_start.after(0) == 1_000_000_008
    assert from_start.after(1_000_000_008) == 1_000_000_308
    assert from_start.after(1_000_000_308) is None
    with pytest.raises(ValueError, match="whole seconds"):
        timing(None, 0.5, "UTC", None, None)


MINUTELY = timing(None, 60, "UTC", None, None)
NOW = 60_000_030


@pytest.mark.parametrize(
    ("catch_up", "due", "expected"),
    [
        ("last", 60_000_000, [Step(60_000_000, 60_000_060, run=True)]),
        ("none", 60_000_000, [Step(60_000_000, 60_000_060, run=True)]),
        ("last", 59_999_880, [
            Step(59_999_880, 60_000_000, run=False, last=59_999_940), Step(60_000_000, 60_000_060, run=True)]),
        ("none", 59_999_940, [
            Step(59_999_940, 60_000_000, run=False), Step(60_000_000, 60_000_060, run=True)]),
        ("all", 59_999_940, [
            Step(59_999_940, 60_000_000, run=True), Step(60_000_000, 60_000_060, run=True)]),
    ],
)  # fmt: skip
def test_catch_up_runs_the_last_all_or_no_missed_ticks(catch_up: str, due: int, expected: list[Step]) -> None:
    assert plan(MINUTELY, due, NOW, catch_up) == expected


def test_catching_up_all_runs_the_last_hundred_missed_ticks() -> None:
    first, *rest = plan(MINUTELY, NOW - 30 - 60 * 600_000, NOW, "all")
    assert (first.run, first.upcoming) == (False, rest[0].tick)
    assert [step.tick for step in rest] == [60_000_000 - 60 * n for n in range(100, -1, -1)]
    assert all(step.run for step in rest)


def test_a_missed_daily_tick_runs_once_by_catch_up_last_and_never_by_none() -> None:
    daily = timing("0 0 * * *", None, "UTC", None, None)
    midnight = 86_400 * 700
    now = midnight + 3600
    assert plan(daily, midnight - 5 * 86_400, now, "last") == [
        Step(midnight - 5 * 86_400, midnight, run=False, last=midnight - 86_400),
        Step(midnight, midnight + 86_400, run=True),
    ]
    assert plan(daily, midnight, now, "none") == [Step(midnight, midnight + 86_400, run=False)]
