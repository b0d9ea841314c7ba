"""The report's figures against SQL over the raw events, written independently of it."""

import random
import sqlite3
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text

from rqjobs.attempt import Attempt
from rqjobs.database import get_engine
from rqjobs.database.schema import init_database
from rqjobs.jobs import QRAnalyticsJob
from rqjobs.processors.analytics import InvalidPeriod, record_batch, report, reporting
from tests.support.scans import attempts, scans

START = datetime(2026, 3, 20, tzinfo=UTC)
AGENTS = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605 (KHTML, like Gecko) Mobile/1 Safari/604",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:126.0) Gecko/20100101 Firefox/126.0",
    "curl/8.5.0",
)
PLACES = ({"country": "DE", "city": "Berlin"}, {"country": "US", "city": "Berlin"}, {"country": "FR"}, None)


@pytest.fixture
def engine(database_url):
    """2,400 events of two owners over 20 days, in which the clocks of Europe are changed."""
    engine = get_engine()
    init_database(engine)
    dice = random.Random(42)
    items = []
    for number in range(2_400):
        code = dice.randrange(8)
        when = START + timedelta(seconds=dice.randrange(20 * 86_400))
        data = {
            "eventId": f"e{number}",
            "timestamp": when.isoformat(),
            "userId": f"u{code % 2}",
            "userAgent": dice.choice(AGENTS),
            "ip": f"203.0.{dice.randrange(3)}.{dice.randrange(9)}",
            "location": dice.choice(PLACES),
            "result": dice.choice(["valid", "expired", None]),
        }
        event = dice.choice(["scan", "scan", "scan", "validated", "redeemed"])
        job = QRAnalyticsJob(qr_code_id=f"qr_{code}", event=event, data=data)
        items.append((job, Attempt(job_id=f"j{number}", queue="qr-analytics")))
    for index in range(0, len(items), 300):
        record_batch(items[index : index + 300])
    return engine


class Questions:
    """SQL over rqjobs_qr_events alone, for one period, zone and condition."""

    def __init__(self, connection, zone, since, until, condition):
        self.connection, self.zone, self.condition = connection, zone, condition
        midnights = [datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone)) for day in (since, until)]
        self.bounds = [moment.astimezone(UTC) for moment in (midnights[0], midnights[1] + timedelta(days=1))]
        self.local = f"(occurred_at AT TIME ZONE '{zone}')"
        if connection.dialect.name == "sqlite":
            self.bounds = [f"{moment:%Y-%m-%d %H:%M:%S.%f}" for moment in self.bounds]
            self.local = "local(occurred_at)"
            raw: sqlite3.Connection = connection.connection.driver_connection
            raw.create_function(
                "local", 1, lambda t: str(datetime.fromisoformat(t + "+00:00").astimezone(ZoneInfo(zone)))[:19]
            )

    def ask(self, select, where="event = 'scan' AND NOT bot", source="rqjobs_qr_events", time="occurred_at", rest=""):
        statement = (
            f"SELECT {select} FROM {source} WHERE {time} >= :since AND {time} < :until "
            f"AND ({where}) AND ({self.condition}) {rest}"
        )
        rows = self.connection.execute(text(statement), {"since": self.bounds[0], "until": self.bounds[1]})
        return [tuple(row) for row in rows]

    def number(self, where="event = 'scan' AND NOT bot"):
        return self.ask("count(*)", where)[0][0]

    def visitors(self, group, having=""):
        source = (
            f"(SELECT min(occurred_at) AS first, count(*) AS scans FROM rqjobs_qr_events WHERE event = 'scan' "
            f"AND NOT bot AND visitor IS NOT NULL AND ({self.condition}) GROUP BY {group}) AS seen"
        )
        statement = f"SELECT count(*) FROM {source} WHERE first >= :since AND first < :until {having}"
        parameters = {"since": self.bounds[0], "until": self.bounds[1]}
        return self.connection.execute(text(statement), parameters).scalar()

    def by(self, expression, where="event = 'scan' AND NOT bot"):
        return {key or "": n for key, n in self.ask(f"{expression}, count(*)", where, rest=f"GROUP BY {expression}")}


SCOPES = (
    ({}, "true", "visitor"),
    ({"user_id": "u1"}, "user_id = 'u1'", "visitor"),
    ({"qr_code_id": "qr_3"}, "qr_code_id = 'qr_3'", "qr_code_id, visitor"),
)


def test_every_figure_equals_sql_over_the_raw_events(engine):
    for zone in ("UTC", "Europe/Berlin", "Asia/Kathmandu"):
        for scope, condition, group in SCOPES:
            check_every_figure(engine, zone, scope, condition, group)


def check_every_figure(engine, zone, scope, condition, group):
    found = report(**scope, since="2026-03-27", until="2026-04-02", zone=zone, top=100)
    with engine.connect() as connection:
        sql = Questions(connection, zone, "2026-03-27", "2026-04-02", condition)
        totals = found.totals
        assert totals.scans == sql.number()
        assert totals.bots == sql.number("event = 'scan' AND bot")
        assert totals.visitors == sql.visitors(group)
        assert totals.returning == sql.visitors(group, "AND scans > 1")
        assert totals.validations == sql.number("event = 'validation'")
        assert totals.results == sql.by("result", "event = 'validation'")
        assert totals.events["redemption"] == sql.number("event = 'redemption'")
        valid = sql.number("event = 'validation' AND (result = 'valid' OR result IS NULL)")
        assert totals.conversion == pytest.approx(valid / sql.number())
        assert totals.repeat_rate == pytest.approx(totals.returning / totals.visitors)

        day = f"substr(CAST({sql.local} AS text), 1, 10)"
        hour = f"substr(CAST({sql.local} AS text), 12, 2)"
        assert {str(p.start): p.scans for p in found.series if p.scans} == sql.by(day)
        validations = {str(p.start): p.validations for p in found.series if p.validations}
        assert validations == sql.by(day, "event = 'validation'")
        assert len(found.series) == 7
        assert sum(point.visitors for point in found.series) == totals.visitors
        by_hour = sql.by(f"{day} || {hour}")
        expected = [[0] * 24 for _ in range(7)]
        for key, number in by_hour.items():
            expected[datetime.fromisoformat(key[:10]).weekday()][int(key[10:])] += number
        assert [list(row) for row in found.heatmap] == expected

        for shares, column in (
            (found.devices, "device"), (found.systems, "os"), (found.browsers, "browser"), (found.countries, "country"),
            (found.codes, "qr_code_id" if "qr_code_id" not in scope else "NULL"),
        ):  # fmt: skip
            if column != "NULL":
                assert {share.name: share.scans for share in shares} == sql.by(column)
                assert sum(share.share for share in shares) == pytest.approx(1)
                assert [share.scans for share in shares] == sorted((s.scans for s in shares), reverse=True)
        cities = {(share.name or ""): share.scans for share in found.cities}
        assert cities == sql.by("city || ', ' || country")
        before = Questions(connection, zone, "2026-03-20", "2026-03-26", condition)
        assert found.previous.scans == before.number()
        assert found.previous.visitors == before.visitors(group)
        assert found.change["scans"] == pytest.approx(sql.number() / before.number() - 1)


def test_other_steps_and_other_questions(engine):
    found = report(since="2026-03-27", until="2026-03-28", zone="Asia/Kolkata")
    with engine.connect() as connection:
        sql = Questions(connection, "Asia/Kolkata", "2026-03-27", "2026-03-28", "true")
        hour = f"substr(CAST({sql.local} AS text), 1, 13)"
        assert {str(p.start)[:13]: p.scans for p in found.series if p.scans} == sql.by(hour)
    assert (found.step, len(found.series)) == ("hour", 48)

    whole = {"since": "2026-03-20", "until": "2026-04-08"}
    for step in ("day", "week", "month"):
        found = report(**whole, step=step, top=100)
        assert sum(point.scans for point in found.series) == found.totals.scans
    assert report(**whole, top=3).codes == found.codes[:3]
    with engine.connect() as connection:  # with whole weeks in it, which are read as such
        for zone in ("UTC", "Asia/Kolkata"):
            found = report(**whole, zone=zone, top=100)
            sql = Questions(connection, zone, *whole.values(), "true")
            assert {share.name: share.scans for share in found.codes} == sql.by("qr_code_id")
            assert {share.name: share.scans for share in found.devices} == sql.by("device")
            assert {share.name: share.scans for share in found.countries} == sql.by("country")

    found = report(qr_code_id="never", **whole)
    assert (found.totals.scans, found.totals.conversion, found.change["scans"], found.devices) == (0, None, None, ())
    assert len(found.series) == 20


def test_a_question_that_makes_no_sense():
    with pytest.raises(InvalidPeriod, match="not both"):
        report(qr_code_id="a", user_id="b")
    with pytest.raises(InvalidPeriod, match="take a longer step"):
        report(since="2025-01-01", until="2026-01-01", step="hour")


def test_a_report_sees_one_moment(database_url, monkeypatch):
    init_database(get_engine())
    by_time = reporting.by_time

    def and_meanwhile(*question):
        found = by_time(*question)
        record_batch(attempts(scans(50, START, 1)))
        return found

    monkeypatch.setattr(reporting, "by_time", and_meanwhile)
    found = report(since="2026-03-20", until="2026-03-20")
    assert (found.totals.scans, found.devices, found.codes) == (0, (), ())
    monkeypatch.setattr(reporting, "by_time", by_time)
    assert report(since="2026-03-20", until="2026-03-20").totals.scans > 0
