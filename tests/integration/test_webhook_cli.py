"""``emit``, replays and ``rqjobs webhooks``."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import timedelta

import pytest
import redis as redis_py
import requests
from sqlalchemy import event, text

from rqjobs import InvalidJob
from rqjobs.broker.rq_schema import key
from rqjobs.cli import main
from rqjobs.cli.webhooks import SHOWN
from rqjobs.config.settings import get_settings
from rqjobs.database import get_engine
from rqjobs.database.schema import init_database
from rqjobs.database.webhook_deliveries import Delivery, Filter, find, replayable, write
from rqjobs.database.webhook_endpoints import set_enabled
from rqjobs.jobs import WebhookJob
from rqjobs.processors.webhook import breaker
from rqjobs.security.signing import parse_secret, sign
from rqjobs.webhooks import add_endpoint, emit, replay

pytestmark = pytest.mark.usefixtures("redis")


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["webhooks", *words])
    output = capsys.readouterr()
    assert ended.value.code == code, output.err
    return output.err if code else output.out


def logged(rows: Sequence[tuple[str, int, str]]) -> None:
    """Writes (job id, attempt, outcome), a minute apart, the newest now."""
    now = int(time.time() * 1000)
    work = WebhookJob(
        webhook_id="w",
        event="e.x",
        url="https://example.com/hook",
        payload={"n": 1, "password": "p-123"},
        headers={"X-API-Key": "k-123"},
    ).model_dump_json(exclude_defaults=True)
    write(
        get_engine(),
        [
            Delivery(job_id, "https://example.com/hook", "e.x", attempt, now - 60_000 * (len(rows) - place), 12.5,
                     200 if outcome == "done" else 503, outcome, None if outcome == "done" else "503", "answer",
                     work if attempt == 1 else None)
            for place, (job_id, attempt, outcome) in enumerate(rows, 1)
        ],
        [],
        timedelta(days=5),
    )  # fmt: skip


def test_emit_reaches_the_subscribed_endpoints(redis: redis_py.Redis) -> None:
    add_endpoint("all", "https://a.example/")
    add_endpoint("bookings", "https://b.example/", events=["booking.*"])
    add_endpoint("one", "https://c.example/", events=["qr.scanned", "booking.created"])
    add_endpoint("off", "https://d.example/")
    set_enabled(get_engine(), "off", reason="by hand")

    def heard(event: str) -> set[str]:
        jobs = emit(event, {"n": 1}, priority="high")
        assert all(job.origin == "webhooks:high" for job in jobs)
        return {job.args[1]["endpoint"] for job in jobs}

    assert heard("booking.created") == {"all", "bookings", "one"}
    assert heard("booking.deleted") == {"all", "bookings"}
    assert heard("bookings") == {"all"}
    assert heard("qr.scanned") == {"all", "one"}
    with pytest.raises(InvalidJob, match="job_id"):
        emit("qr.scanned", {}, job_id="x")
    with pytest.raises(InvalidJob, match="event"):
        emit("not an event", {})
    assert redis.llen(key("queue", "webhooks:high")) == 8


def test_a_repeated_emit_is_one_event(redis: redis_py.Redis) -> None:
    add_endpoint("a", "https://a.example/")
    add_endpoint("b", "https://b.example/")
    first = emit("booking.created", {"n": 1}, event_id="booking-7 created")
    add_endpoint("c", "https://c.example/")
    again = emit("booking.created", {"n": 1}, event_id="booking-7 created")
    assert [job.id for job in again[:2]] == [job.id for job in first]
    assert redis.llen(key("queue", "webhooks")) == 3  # the new endpoint gets it as well
    other = emit("booking.created", {"n": 1}, event_id="booking-8 created")
    assert not {job.id for job in other} & {job.id for job in again}
    assert redis.llen(key("queue", "webhooks")) == 6
    with pytest.raises(InvalidJob, match="event_id"):
        emit("booking.created", {}, event_id="")


def test_emit_is_one_round_trip(redis: redis_py.Redis) -> None:
    for number in range(50):
        add_endpoint(f"e{number}", f"https://e{number}.example/")
    emit("warm.up", {})
    redis.config_resetstat()
    assert len(emit("x.y", {})) == 50
    assert redis.info("commandstats")["cmdstat_evalsha"]["calls"] == 1


def test_replay_sends_failed_deliveries(redis: redis_py.Redis) -> None:
    logged([("a", 1, "dead"), ("b", 1, "retry"), ("b", 2, "done"), ("c", 2, "dead"), ("d", 1, "dead")])
    dry = replay(Filter(), dry_run=True)
    assert (dry.enqueued, dry.lost) == (["a", "d"], ["c"])
    assert redis.zcard(key("scheduled", "webhooks")) == 0
    began = time.time()
    done = replay(Filter(), pace=0.5)
    assert done.enqueued == ["a", "d"]
    assert redis.lrange(key("queue", "webhooks"), 0, -1) == [b"a"]
    ((job_id, due),) = redis.zrange(key("scheduled", "webhooks"), 0, -1, withscores=True)
    assert job_id == b"d"
    assert began + 2 <= due <= time.time() + 2
    again = replay(Filter(), delivered_too=True)
    assert (again.enqueued, again.under_way) == (["b"], ["a", "d"])


def test_deliveries_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "deliveries") == "no deliveries\n"
    logged([("a", 1, "retry"), ("a", 2, "done"), ("b", 1, "dead")])
    rows = json.loads(run(capsys, "deliveries", "--json"))
    assert [(row["job_id"], row["attempt"], row["outcome"]) for row in rows] == [
        ("b", 1, "dead"), ("a", 2, "done"), ("a", 1, "retry")]  # fmt: skip
    assert "job" not in rows[0]
    assert "12 ms" in run(capsys, "deliveries")
    assert len(json.loads(run(capsys, "deliveries", "--json", "--outcome", "dead"))) == 1
    assert len(json.loads(run(capsys, "deliveries", "--json", "--since", "30s"))) == 1
    assert json.loads(run(capsys, "deliveries", "--json", "--until", "2020-01-01")) == []
    shown = run(capsys, "show", "a")
    assert "k-123" not in shown
    assert "p-123" not in shown
    assert "(hidden)" in shown
    document = json.loads(run(capsys, "show", "a", "--json"))
    assert document["job"]["payload"] == {"n": 1, "password": "(hidden)"}
    assert [attempt["status"] for attempt in document["attempts"]] == [503, 200]
    assert "no delivery 'zzz' in the log: check the id and DATABASE_URL" in run(capsys, "show", "zzz", code=2)
    assert "is no time" in run(capsys, "deliveries", "--since", "soon", code=2)
    assert "not in the range" in run(capsys, "deliveries", "--limit", "9" * 20, code=2)


def test_endpoints_can_be_added_disabled_and_removed(capsys: pytest.CaptureFixture[str]) -> None:
    assert "webhooks add" in run(capsys, "endpoints")
    added = run(capsys, "add", "shop", "https://shop.example/hook", "--event", "booking.*")
    secret = added.split()[-1]
    assert secret.startswith("whsec_")
    assert secret not in run(capsys, "endpoints") + run(capsys, "endpoints", "--json")
    taken = run(capsys, "add", "shop", "https://shop.example/moved", code=2)
    assert "registered already" in taken
    assert "whsec_" not in taken
    moved = run(capsys, "add", "shop", "https://shop.example/moved", "--replace")
    assert moved == "shop is changed; its secret is as before\n"
    assert json.loads(run(capsys, "add", "shop", "https://shop.example/hook", "--replace", "--json")) == {
        "name": "shop"
    }
    for pattern in ("booking*", ""):
        assert "fits no event" in run(capsys, "add", "shop", "https://shop.example/", "--event", pattern, code=2)
    second = json.loads(run(capsys, "rotate", "shop", "--json"))["secret"]
    assert second != secret
    assert run(capsys, "disable", "https://shop.example/hook") == "disabled shop\n"
    assert "it is disabled: by hand" in run(capsys, "add", "shop", "https://shop.example/hook", "--replace")
    (shown,) = json.loads(run(capsys, "endpoints", "--json"))
    assert (shown["enabled"], shown["reason"], shown["events"]) == (False, "by hand", ["booking.*"])
    assert run(capsys, "enable", "shop").startswith("enabled shop;")
    assert json.loads(run(capsys, "endpoints", "--json"))[0]["enabled"] is True
    assert run(capsys, "remove", "shop") == "removed shop\n"
    for words in (["enable", "shop"], ["rotate", "shop"], ["remove", "shop"]):
        assert (
            run(capsys, *words, code=2)
            == "error: no endpoint 'shop' is known; see them with: rqjobs webhooks endpoints\n"
        )
    assert "not an http" in run(capsys, "add", "shop", "ftp://shop.example", code=2)
    assert "is not a name" in run(capsys, "add", "http://x", "https://shop.example", code=2)
    assert "whsec_" in run(capsys, "add", "shop", "https://shop.example", "--secret", "guess", code=2)


def test_a_delivery_can_be_replayed_by_id(capsys: pytest.CaptureFixture[str]) -> None:
    logged([("a", 1, "dead"), ("b", 1, "done")])
    assert "would send 1 again" in run(capsys, "replay", "--all", "--dry-run")
    assert json.loads(run(capsys, "replay", "b", "--json", "--dry-run"))["enqueued"] == ["b"]
    assert "sending 1 again" in run(capsys, "replay", "--endpoint", "https://example.com/hook")
    assert "still under way: a" in run(capsys, "replay", "a")
    assert "name them: IDs" in run(capsys, "replay", code=2)
    for pace in ("0", "-1", "1e-300", "nan"):
        assert "the least is 0.001" in run(capsys, "replay", "--all", "--dry-run", "--pace", pace, code=2)
    assert "no delivery 'zzz' in the log" in run(capsys, "replay", "zzz", code=2)
    assert len(find(get_engine(), Filter(), 10)) == 2


def test_a_dry_run_lists_the_deliveries(capsys: pytest.CaptureFixture[str], redis: redis_py.Redis) -> None:
    logged([("a", 1, "retry"), ("a", 2, "dead"), ("b", 1, "retry"), ("c", 1, "done")])
    heads, row, summary = run(capsys, "replay", "--outcome", "dead", "--dry-run").splitlines()
    assert heads.split()[:4] == ["id", "when", "endpoint", "event"]
    name, _when, *facts = re.split(r"\s{2,}", row)
    assert (name, facts) == ("a", ["example.com/...", "e.x", "2", "503 dead", "12 ms", "503"])
    assert summary == "would send 1 again, 10 a second (100ms)"

    def ids(*words: str) -> list[str]:
        found: list[str] = json.loads(run(capsys, "replay", *words, "--dry-run", "--json"))["enqueued"]
        return found

    assert ids("--outcome", "retry") == ["a", "b"]
    assert ids("--outcome", "done") == ["c"]
    assert ids("--outcome", "dead", "--since", "90s") == []
    assert len(run(capsys, "replay", "a", "b", "c", "--dry-run").splitlines()) == 5
    logged([(f"x{number}", 1, "dead") for number in range(SHOWN + 1)])
    *listed, more, _summary = run(capsys, "replay", "--outcome", "dead", "--dry-run").splitlines()
    assert (len(listed), more) == (1 + SHOWN, "... and 2 more; every id: --json")
    assert redis.zcard(key("scheduled", "webhooks")) + redis.llen(key("queue", "webhooks")) == 0


def test_destinations_that_do_not_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "destinations") == "every destination answers, nothing is parked\n"
    settings = get_settings()
    for _ in range(settings.webhook_breaker_failures):
        breaker.report_failure("https://dead.example:443", time.time() - 15, probe=False, settings=settings)
    asked = [("a", 1.0), ("b", 2.0)]
    breaker.ask([breaker.AdmissionRequest(["https://dead.example:443"], 5, False, asked)], settings)
    (shown,) = json.loads(run(capsys, "destinations", "--json"))
    assert (shown["destination"], shown["state"], shown["failures"], shown["parked"]) == (
        "https://dead.example:443", "open", 10, 2)  # fmt: skip
    assert "https://dead.example:443" in run(capsys, "destinations")


def test_destinations_are_found_among_many_other_keys(redis: redis_py.Redis) -> None:
    settings = get_settings()
    for first in range(0, 100_000, 10_000):  # a piece at a time: on a busy machine each takes a while
        redis.eval("for n = ARGV[1], ARGV[1] + 9999 do redis.call('SET', 'other:' .. n, '') end", 0, str(first))
    assert redis.dbsize() >= 100_000
    for number in range(3):
        breaker.report_failure(f"d{number}", time.time(), probe=False, settings=settings)
    breaker.report_answer("d1")
    redis.config_resetstat()
    assert [found.destination for found in breaker.breakers()] == ["d0", "d2"]
    statistics = redis.info("commandstats")
    assert {name.removeprefix("cmdstat_") for name in statistics} <= {
        "zrange", "hmget", "zcard", "config|resetstat", "info"}  # fmt: skip
    assert statistics["cmdstat_hmget"]["calls"] == 2


def test_failed_attempts_are_found_by_an_index(database_url: str) -> None:
    engine = get_engine()
    init_database(engine)
    logged([(f"j{number}", 1, "dead" if number % 100 == 0 else "done") for number in range(5000)])
    explain = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN "
    plans = []

    def ask_twice(_connection, cursor, statement, parameters, *_) -> None:  # type: ignore[no-untyped-def]
        other = cursor.connection.cursor()
        other.execute(explain + statement, parameters)
        plans.append("\n".join(str(row) for row in other.fetchall()))

    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    event.listen(engine, "before_cursor_execute", ask_twice)
    assert len(find(engine, Filter(outcome="dead"), 20)) == 20
    assert "outcome_at_ms" in plans[-1]
    assert len(list(replayable(engine, Filter(outcome="dead")))) == 50
    assert "outcome_at_ms" in plans[-1]


def test_the_sandbox_accepts_the_secret_of_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    _, theirs = add_endpoint("shop", "https://shop.example/hook")
    monkeypatch.setenv("WEBHOOK_SIGNING_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    command = [sys.executable, "-u", "-m", "rqjobs", "sandbox", "webhooks", "--port", "0", "--secret", theirs]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, contextlib.ExitStack() as end:
        end.callback(process.terminate)
        assert process.stdout is not None
        (url,) = re.findall(r"http://\S+/ok", process.stdout.readline())
        for secret, status in [
            (theirs, 204),
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", 204),
            ("whsec_" + "A" * 32, 401),
        ]:
            now = int(time.time())
            signature = sign([parse_secret(secret)], "id", now, b"{}")
            headers = {"webhook-id": "id", "webhook-timestamp": str(now), "webhook-signature": signature}
            assert requests.post(url, b"{}", headers=headers, timeout=60).status_code == status
