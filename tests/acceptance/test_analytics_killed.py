"""Events with duplicates, out of order, over two time zones, through workers killed at random: each counts once."""

from __future__ import annotations

import random
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import func, select

from rqjobs import enqueue_many
from rqjobs.config.settings import use_settings
from rqjobs.database import get_engine
from rqjobs.database.analytics import events
from rqjobs.database.schema import init_database
from rqjobs.dead_letters import letters as dead_letters
from rqjobs.jobs import QRAnalyticsJob
from rqjobs.processors.analytics import report
from tests.support.scans import CURL, PHONE

FORMS = [
    pytest.param((12_000, 1), id="short"),
    pytest.param((100_000, 25), id="long", marks=pytest.mark.slow),
]
"""Events and killings."""

AHEAD = 8_000
"""Jobs that wait beyond the next killing: it is to find the workers busy, and more than enough is left for the next."""

START = datetime(2026, 3, 20, tzinfo=UTC)
DAYS = 14
ZONES = ("America/New_York", "Asia/Kolkata")


def make(number: int, dice: random.Random) -> list[dict]:
    """What happened, as plainly as it can be said."""
    return [
        {
            "id": f"e{index}",
            "code": f"qr_{min(dice.randrange(40), dice.randrange(40))}",
            "user": f"u{dice.randrange(3)}",
            "event": dice.choice(["scan", "scan", "scan", "validate"]),
            "when": START + timedelta(seconds=dice.randrange(DAYS * 86_400)),
            "zone": dice.choice(ZONES),
            "ip": f"203.0.{dice.randrange(4)}.{dice.randrange(200)}",
            "agent": CURL if dice.random() < 0.05 else PHONE,
        }
        for index in range(number)
    ]


def as_job(entry: dict) -> QRAnalyticsJob:
    return QRAnalyticsJob(
        qr_code_id=entry["code"],
        event=entry["event"],
        data={
            "event_id": entry["id"],
            "timestamp": entry["when"].astimezone(ZoneInfo(entry["zone"])).isoformat(),
            "user_id": entry["user"],
            "ip": entry["ip"],
            "user_agent": entry["agent"],
            "result": "valid",
        },
    )


def stored() -> int:
    with get_engine().connect().execution_options(sqlite_read=True) as connection:
        return connection.execute(select(func.count()).select_from(events)).scalar_one()


def run_with_killings(workers, jobs: list[QRAnalyticsJob], different: int, kills: int, dice: random.Random) -> None:
    """Two workers; one of them is killed each time that a share of the events is stored."""
    at = sorted(dice.sample(range(1, different - AHEAD), kills))
    running = [workers.start("qr-analytics"), workers.start("qr-analytics")]
    total, sent = 0, 0
    deadline = time.monotonic() + 60 + len(jobs) / 100
    while total < len(jobs):
        assert time.monotonic() < deadline, workers.logs()[-3000:]
        # However fast they are, the workers cannot end before the last killing: the rest is enqueued after it.
        until = at[0] + AHEAD if at else len(jobs)
        enqueue_many(jobs[sent:until], attempts=100, backoff="fixed:0s")
        sent = max(sent, until)
        if at and stored() >= at[0]:
            at.pop(0)
            time.sleep(dice.random() * 0.05)
            victim = dice.randrange(2)
            running[victim].kill()
            running[victim].wait()
            running[victim] = workers.start("qr-analytics")
        # A job that was under three killed workers is taken for the cause. Here we know better.
        dead_letters.requeue(letter.job_id for letter in dead_letters.dead_letters("qr-analytics", "WorkerDied"))
        time.sleep(0.02)
        total = completed()


def completed() -> int:
    from rqjobs.monitoring.queue_health import queue_health

    return next(queue.completed for queue in queue_health() if queue.name == "qr-analytics")


@pytest.mark.parametrize("form", FORMS)
def test_every_event_counts_once(workers, database_url, monkeypatch, form):
    number, kills = form
    monkeypatch.setenv("RQJOBS_LEASE", "2")
    monkeypatch.setenv("RQJOBS_SECRET_KEY", "s" * 43)
    use_settings(None)
    init_database(get_engine())
    dice = random.Random(number)
    entries = make(number, dice)
    sent = [*entries, *dice.sample(entries, number // 20)]
    dice.shuffle(sent)
    run_with_killings(workers, [as_job(entry) for entry in sent], number, kills, dice)

    assert stored() == number
    for zone in ZONES:
        found = report(zone=zone, since="2026-03-19", until="2026-04-04")
        people = [entry for entry in entries if entry["event"] == "scan" and entry["agent"] == PHONE]
        assert found.totals.scans == len(people)
        assert found.totals.bots == sum(entry["event"] == "scan" and entry["agent"] == CURL for entry in entries)
        assert found.totals.validations == sum(entry["event"] == "validate" for entry in entries)
        assert found.totals.visitors == len({(entry["when"].date(), entry["user"], entry["ip"]) for entry in people})
        by_day = Counter(entry["when"].astimezone(ZoneInfo(zone)).date() for entry in people)
        assert {point.start: point.scans for point in found.series if point.scans} == by_day
    one = report(qr_code_id="qr_3", since="2026-03-19", until="2026-04-04")
    mine = [entry for entry in people if entry["code"] == "qr_3"]
    assert one.totals.scans == len(mine)
    assert one.totals.visitors == len({(entry["when"].date(), entry["user"], entry["ip"]) for entry in mine})
