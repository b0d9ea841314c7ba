"""Events in the database: each once, whatever arrives twice, late, broken or at the same moment."""

import json
import random
import threading
from collections import Counter
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import Text, cast, event, func, select, text, update

from rqjobs.attempt import Attempt
from rqjobs.database import get_engine
from rqjobs.database.analytics import counts, events, visitors
from rqjobs.database.schema import init_database
from rqjobs.errors import PermanentFailure
from rqjobs.jobs import QRAnalyticsJob
from rqjobs.processors.analytics import hooks, on_event, purge, record, record_batch, retention, store
from rqjobs.processors.analytics.tally import quarter_of

IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148"


@pytest.fixture
def engine(database_url):
    engine = get_engine()
    init_database(engine)
    return engine


@pytest.fixture
def no_hooks(monkeypatch):
    monkeypatch.setattr(hooks, "_hooks", [])


def item(job_id, event="scanned", code="qr_1", number=1, **data):
    data = {"timestamp": "2026-03-01T12:00:00Z", "user_agent": IPHONE, "ip": "203.0.113.7"} | data
    job = QRAnalyticsJob(qr_code_id=code, event=event, data=data)
    return job, Attempt(job_id=job_id, queue="qr-analytics", number=number)


def totals(engine, scope="all"):
    with engine.connect() as connection:
        rows = connection.execute(
            select(counts.c.metric, counts.c.value, func.sum(counts.c.total))
            .where(counts.c.scope == scope)
            .group_by(counts.c.metric, counts.c.value)
        )
        return {(metric, value) if value else metric: total for metric, value, total in rows if total}


def test_one_event_is_stored_and_counted(engine):
    job, attempt = item("j1", user_id="u1", location={"country": "DE", "city": "Berlin"}, table=4)
    assert record(job, attempt) == {"event_id": "job-j1", "counted": True}
    with engine.connect() as connection:
        row = connection.execute(select(events)).one()._mapping
    assert row["occurred_at"].replace(tzinfo=UTC) == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert (row["device"], row["os"], row["country"], row["city"]) == ("mobile", "iOS", "DE", "Berlin")
    assert (row["ip"], row["extra"], row["user_id"]) == ("203.0.113.0", {"table": 4}, "u1")
    for scope in ("all", "user:u1", "code:qr_1"):
        assert totals(engine, scope)["scan"] == totals(engine, scope)["visitor"] == 1
    with engine.connect() as connection:
        rows = connection.execute(select(counts).where(counts.c.scope == "all", counts.c.metric == "scan")).one()
    assert (rows.day, rows.total, rows.quarters) == (date(2026, 3, 1), 1, {"48": 1})


def test_a_job_that_runs_again_counts_nothing(engine):
    assert record(*item("j1"))["counted"] is True
    assert record(*item("j1", number=2))["counted"] is False
    assert totals(engine)["scan"] == 1


def test_the_same_event_in_two_jobs_of_a_batch_counts_once(engine):
    outcomes = record_batch([item("j1", event_id="e1"), item("j2", event_id="e1"), item("j3", eventId="e2")])
    assert [outcome["counted"] for outcome in outcomes] == [True, False, True]
    assert (totals(engine)["scan"], totals(engine)["visitor"], totals(engine)["returning"]) == (2, 1, 1)


def test_one_bad_event_does_not_sink_its_batch(engine):
    outcomes = record_batch([item("j1"), item("j2", event_id=["no"]), item("j3")])
    assert isinstance(outcomes[1], PermanentFailure)
    assert [outcomes[0]["counted"], outcomes[2]["counted"]] == [True, True]
    assert totals(engine)["scan"] == 2


def test_one_event_that_the_database_refuses_does_not_sink_its_batch(engine):
    if engine.dialect.name == "sqlite":
        rule = (
            "CREATE TRIGGER rule BEFORE INSERT ON rqjobs_qr_events WHEN new.city = 'Nowhere' "
            "BEGIN SELECT RAISE(ABORT, 'no such city'); END"
        )
    else:
        rule = "ALTER TABLE rqjobs_qr_events ADD CONSTRAINT rule CHECK (city <> 'Nowhere')"
    with engine.begin() as connection:
        connection.execute(text(rule))
    items = [item(f"j{number}", location={"city": "Nowhere" if number == 5 else "Ulm"}) for number in range(9)]
    outcomes = record_batch(items)
    assert isinstance(outcomes[5], PermanentFailure)
    assert sum(isinstance(outcome, dict) and outcome["counted"] for outcome in outcomes) == 8
    assert totals(engine)["scan"] == 8


def test_nothing_is_half_stored(engine, monkeypatch):
    monkeypatch.setattr(store, "_count", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        record(*item("j1"))
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(events)).scalar() == 0
        assert connection.execute(select(func.count()).select_from(visitors)).scalar() == 0


def test_strange_texts_are_stored(engine):
    strange = {"note\x00": "a\x00b \\u0000 \U0001f600", "big": 10**30}
    data = {"user_agent": "\x00\x01" + IPHONE, "location": "Zür\x00ich, CH", "result": "\tOK "} | strange
    assert record(*item("j1", **data))["counted"]
    with engine.connect() as connection:
        raw = connection.execute(select(events.c.city, events.c.result, cast(events.c.extra, Text))).one()
    assert raw[:2] == ("Zür ich", "ok")
    assert json.loads(raw[2]) == strange


def test_counts_and_uniques_equal_a_straight_computation(engine):
    """Shuffled, with duplicates, by threads that share codes and visitors."""
    dice = random.Random(7)
    start = datetime(2026, 3, 28, 20, tzinfo=UTC)
    inputs = [
        {
            "event_id": f"e{number}",
            "code": f"qr_{dice.randrange(6)}",
            "event": dice.choice(["scan", "scan", "scan", "validated"]),
            "when": start + timedelta(minutes=dice.randrange(3 * 1440)),
            "user_id": dice.choice(["u1", "u2"]),
            "ip": f"203.0.113.{dice.randrange(40)}",
            "agent": dice.choice([IPHONE, "curl/8.0"]),
        }
        for number in range(1_500)
    ]
    sent = [*inputs, *dice.sample(inputs, 150)]
    dice.shuffle(sent)
    items = [
        item(
            f"j{index}",
            event=entry["event"],
            code=entry["code"],
            event_id=entry["event_id"],
            user_id=entry["user_id"],
            timestamp=entry["when"].isoformat(),
            ip=entry["ip"],
            user_agent=entry["agent"],
            result="valid",
        )
        for index, entry in enumerate(sent)
    ]
    batches = [items[index : index + 50] for index in range(0, len(items), 50)]
    outcomes = []

    def work():
        while batches:
            outcomes.extend(record_batch(batches.pop()))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(outcome["counted"] for outcome in outcomes) == {True: 1_500, False: 150}

    people = [entry for entry in inputs if entry["event"] == "scan" and entry["agent"] == IPHONE]
    for scope, mine in (
        ("all", lambda _: True),
        ("user:u2", lambda entry: entry["user_id"] == "u2"),
        ("code:qr_3", lambda entry: entry["code"] == "qr_3"),
    ):
        found = totals(engine, scope)
        assert found["scan"] == sum(map(mine, people))
        assert found["visitor"] == len({(e["when"].date(), e["user_id"], e["ip"]) for e in people if mine(e)})
        assert found["validation", "valid"] == sum(e["event"] == "validated" and mine(e) for e in inputs)
    by_quarter = Counter((entry["when"].date(), quarter_of(entry["when"])) for entry in people)
    with engine.connect() as connection:
        for row in connection.execute(select(counts).where(counts.c.scope == "all", counts.c.metric == "scan")):
            quarters = {quarter: by_quarter[row.day, quarter] for quarter in range(96) if by_quarter[row.day, quarter]}
            assert {int(quarter): number for quarter, number in row.quarters.items()} == quarters
            assert row.total == sum(quarters.values())


def test_hooks_of_the_app_are_called_for_every_new_event(engine, no_hooks):
    told = []
    on_event(told.append)
    record_batch([item("j1", event_id="e1"), item("j2", event_id="e1"), item("j3", event_id="e2", user_id="u9")])
    assert [(event.event_id, event.user_id) for event in told] == [("e1", None), ("e2", "u9")]
    record(*item("j4", event_id="e1"))
    assert len(told) == 2
    record(*item("j1", event_id="e1", number=2))  # its first run may have died before the hook
    assert len(told) == 3


def test_a_hook_that_fails_makes_its_own_job_run_again(engine, no_hooks):
    @on_event
    def hook(event):
        if event.event_id == "e1":
            raise LookupError("no contact")

    outcomes = record_batch([item("j1", event_id="e1"), item("j2", event_id="e2")])
    assert isinstance(outcomes[0], LookupError)
    assert outcomes[1]["counted"] is True
    assert totals(engine)["scan"] == 2


def test_old_events_are_deleted_and_stay_in_the_counts(engine):
    long_ago = {"timestamp": "2024-03-01T12:00:00Z"}
    record_batch([item(f"j{number}", ip=f"203.0.113.{number}", **long_ago) for number in range(10)])
    with engine.begin() as connection:
        old = datetime.now(UTC) - timedelta(days=500)
        connection.execute(update(events).where(events.c.id <= 6).values(recorded_at=old))
        connection.execute(update(visitors).values(seen_on=old.date()))
    assert purge(engine, timedelta(days=400)) == 6 + 20
    assert purge(engine, timedelta(days=400)) == 0
    assert totals(engine)["scan"] == 10


def test_old_rows_are_deleted_a_few_at_a_time(engine, monkeypatch):
    monkeypatch.setattr(retention, "_CHUNK", 4)
    old = (datetime.now(UTC) - timedelta(days=500)).replace(hour=12)
    stamps = [(old + timedelta(days=number % 3)).isoformat() for number in range(15)]
    record_batch([item(f"j{n}", ip=f"203.0.113.{n}", timestamp=stamp) for n, stamp in enumerate(stamps)])
    late = ["code:qr_1", "code:qr_2"]  # of the same days, and recorded today
    record_batch([item(f"k{n}", code="qr_2", ip=f"203.0.113.{n}", timestamp=stamp) for n, stamp in enumerate(stamps)])
    with engine.begin() as connection:
        connection.execute(update(events).where(events.c.id <= 15).values(recorded_at=old))
        connection.execute(update(visitors).where(visitors.c.scope.not_in(late)).values(seen_on=old.date()))
    deleted = []

    def note(_connection, cursor, statement, *_):
        if statement.startswith("DELETE"):
            deleted.append((statement.split()[2], cursor.rowcount))

    event.listen(engine, "after_cursor_execute", note)
    assert purge(engine, timedelta(days=400), limit=5) == 8
    assert purge(engine, timedelta(days=400)) == 7 + 15
    assert purge(engine, timedelta(days=400)) == 0
    assert max(number for _, number in deleted) == 4
    assert sum(number for table, number in deleted if table == visitors.name) == 15
    with engine.connect() as connection:
        assert connection.execute(select(visitors.c.scope, func.count()).group_by(visitors.c.scope)).all() == [
            (scope, 15) for scope in late
        ]


def test_no_job_dies_while_the_database_does_not_answer(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    from rqjobs.config.settings import use_settings

    use_settings(None)
    outcomes = record_batch([item("j1"), item("j2")])
    assert all(isinstance(outcome, Exception) and not isinstance(outcome, PermanentFailure) for outcome in outcomes)
