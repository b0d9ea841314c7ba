"""Schedules: each tick once over kills and restarts, catching up, overlap, declared ones, the command line."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis as redis_py

import rqjobs
from rqjobs import EmailJob, InvalidJob, schedules, wait_for_result
from rqjobs.broker import keys
from rqjobs.broker.embedded import ensure_server, stop_server
from rqjobs.config.settings import use_settings
from rqjobs.errors import InvalidSchedule, ScheduleNotFound
from rqjobs.schedules.leader import ScheduleThread
from rqjobs.testing import capture
from tests.support.recurring import note_tick
from tests.support.workers import Workers, eventually

IMPORT = {"RQJOBS_IMPORT": "tests.support.recurring"}
MAIL = EmailJob(to="ada@example.com", subject="Report", template="welcome", data={})


def leader(redis: redis_py.Redis) -> ScheduleThread:
    return ScheduleThread(redis, lambda: True)


def make_due(redis: redis_py.Redis, name: str, tick: int) -> None:
    redis.zadd(keys.SCHEDULES_DUE, {name: tick})


def this_minute() -> int:
    return int(time.time()) // 60 * 60


def test_a_tick_enqueues_the_job_with_its_options_and_sets_the_next(redis: redis_py.Redis) -> None:
    added = schedules.add("report", MAIL, cron="* * * * *", priority="high", attempts=7, timezone="Europe/Berlin")
    assert added.next is not None
    assert (added.state, added.source, added.when) == ("active", "redis", "* * * * * Europe/Berlin")
    assert leader(redis).look() > 0
    assert redis.llen("rq:queue:email:high") == 0
    make_due(redis, "report", this_minute())
    assert leader(redis).look() == 0
    (job_id,) = redis.lrange("rq:queue:email:high", 0, -1)
    job = redis.hgetall(f"rq:job:{job_id.decode()}")
    assert (job[b"status"], job[b"retries_left"], job[b"origin"]) == (b"queued", b"6", b"email:high")
    assert json.loads(job[b"meta"])["schedule"] == "report"
    found = schedules.get_schedule("report")
    assert found.next is not None
    assert found.next > datetime.now(UTC)
    assert [(tick.job_id, tick.skipped) for tick in found.ticks] == [(job_id.decode(), None)]


def test_a_tick_is_never_early_and_goes_to_one_of_two_callers(redis: redis_py.Redis) -> None:
    from rqjobs.broker.rq_schema import run_script
    from rqjobs.schedules.store import tick_arguments

    found = schedules.add("report", MAIL, every="1h")
    assert found.next is not None
    tick = int(found.next.timestamp())

    def claim(tick: int) -> bytes:
        arguments = tick_arguments(
            "report", found.version, tick, tick + 3600, job_id=f"job-{time.time_ns()}", client=redis
        )
        return run_script("recurring_tick", redis, arguments)[0]

    assert claim(tick) == b"early"
    make_due(redis, "report", tick - 3600)
    assert [claim(tick - 3600), claim(tick - 3600)] == [b"enqueued", b"gone"]
    assert redis.llen("rq:queue:email") == 1


def test_missed_ticks_are_caught_up_by_policy_and_shown(redis: redis_py.Redis) -> None:
    now = this_minute()
    for policy in ("last", "all", "none"):
        schedules.add(policy, MAIL, every="1h", catch_up=policy)
        make_due(redis, policy, now // 3600 * 3600 - 3600 * 150)
    if now % 3600 <= 120:  # the last tick may not be late yet
        make_due(redis, "none", now // 3600 * 3600 - 3600)
    eventually(lambda: leader(redis).look())
    ticks = {each.name: each.ticks for each in schedules.list_schedules()}
    assert len([tick for tick in ticks["last"] if tick.job_id]) == 1
    assert ticks["last"][-1].skipped == "no worker ran at its time"
    assert ticks["last"][-1].last is not None
    assert len(ticks["all"]) == 20
    assert ticks["none"][-1].skipped == "no worker ran at its time"
    assert 101 <= redis.llen("rq:queue:email") <= 103
    assert all(each.next is not None and each.next.timestamp() > now for each in schedules.list_schedules())


def test_overlap_skip_waits_for_the_job_of_the_earlier_tick(redis: redis_py.Redis) -> None:
    schedules.add("report", MAIL, cron="* * * * *", overlap="skip")
    for back in (2, 1):
        make_due(redis, "report", this_minute() - 60 * (back - 1) if back == 1 else this_minute())
        leader(redis).look()
    newest, first = schedules.get_schedule("report").ticks
    assert newest.skipped == f"job {first.job_id} of an earlier tick still waits"
    assert redis.llen("rq:queue:email") == 1
    redis.hset(f"rq:job:{first.job_id}", "status", "finished")
    make_due(redis, "report", this_minute())
    leader(redis).look()
    assert schedules.get_schedule("report").ticks[0].job_id


def test_jitter_delays_the_job(redis: redis_py.Redis) -> None:
    schedules.add("report", MAIL, cron="* * * * *", jitter="1h")
    make_due(redis, "report", this_minute())
    leader(redis).look()
    ((job_id, due),) = redis.zrange("rq:scheduled:email", 0, -1, withscores=True)
    assert time.time() - 60 < due <= time.time() + 3600
    assert redis.hget(f"rq:job:{job_id.decode()}", "status") == b"scheduled"


def test_pause_resume_run_now_replace_and_remove(redis: redis_py.Redis) -> None:
    schedules.add("report", MAIL, cron="0 3 * * *")
    schedules.pause("report")
    assert (schedules.get_schedule("report").state, schedules.get_schedule("report").next) == ("paused", None)
    job_id = schedules.run_now("report")
    assert redis.lrange("rq:queue:email", 0, -1) == [job_id.encode()]
    assert schedules.add("report", MAIL, cron="0 4 * * *").state == "paused"
    schedules.resume("report")
    found = schedules.get_schedule("report")
    assert found.next is not None
    assert (found.state, found.next.hour, found.ticks[0].manual) == ("active", 4, True)
    make_due(redis, "report", this_minute())  # the next tick stays if the times are the same
    kept = schedules.add("report", MAIL, cron="0 4 * * *", attempts=9).next
    assert kept is not None
    assert kept.timestamp() == this_minute()
    schedules.remove("report")
    assert redis.keys("rqjobs:schedules:*") == []
    for call in (schedules.remove, schedules.pause, schedules.resume, schedules.run_now, schedules.get_schedule):
        with pytest.raises(ScheduleNotFound, match="no schedule 'report'"):
            call("report")


def test_a_schedule_ends_and_one_that_cannot_be_read_keeps_no_other(redis: redis_py.Redis) -> None:
    schedules.add("short", MAIL, cron="* * * * *", ends=datetime.now(UTC))
    assert schedules.get_schedule("short").state == "ended"
    schedules.add("good", MAIL, cron="* * * * *")
    redis.hset(keys.schedule("bad"), mapping={"version": "1", "definition": "{"})
    make_due(redis, "bad", this_minute() - 3600)
    make_due(redis, "good", this_minute())
    leader(redis).look()
    assert {each.name: each.state for each in schedules.list_schedules()} == {
        "good": "active", "short": "ended", "bad": "unreadable"
    }  # fmt: skip
    assert redis.llen("rq:queue:email") == 1


def test_faults_are_named_at_the_call(redis: redis_py.Redis) -> None:
    for name, given, fault in (
        ("a b", {"cron": "0 3 * * *"}, "name: 'a b' is not"),
        ("a", {}, "give one of"),
        ("a", {"cron": "0 3 * * *", "every": "5m"}, "give one of"),
        ("a", {"cron": "61 3 * * *"}, "out of range"),
        ("a", {"cron": "0 3 * * *", "timezone": "Mars"}, "timezone: 'Mars'"),
        ("a", {"every": 300}, 'every: 300 is a bare number; write "300s"'),
        ("a", {"every": "500ms"}, "whole seconds"),
        ("a", {"every": "5m", "starts": datetime(2027, 1, 1)}, "starts: .* time zone"),  # noqa: DTZ001
        ("a", {"every": "5m", "catch_up": "some"}, "catch_up: 'some' is none of"),
        ("a", {"every": "5m", "delay": "1h"}, "delay: is for one job"),
    ):
        with pytest.raises(InvalidSchedule, match=fault):
            schedules.add(name, MAIL, **given)
    with pytest.raises(InvalidJob, match="unknown option 'atempts'"):
        schedules.add("a", MAIL, every="5m", atempts=3)
    with pytest.raises(ValueError, match=r"schedule wrong: cron: .*out of range"):

        @rqjobs.job(queue="wrong", cron="99 * * * *")
        def wrong(payload: dict) -> None: ...

    assert redis.keys("*") == []


def test_nothing_reaches_redis_in_capture() -> None:
    with capture() as captured:
        added = schedules.add("report", MAIL, every="1h")
        assert added.next is not None
        assert added.next > datetime.now(UTC)
        captured.assert_nothing()


def test_the_command_line(workers: Workers, redis: redis_py.Redis) -> None:
    mail = MAIL.dump_json().decode()
    added = workers.json("schedules", "add", "report", "email", mail, "--cron", "0 3 * * *", "--timezone", "Asia/Tokyo")
    assert (added["state"], added["timezone"], added["next"][11:16]) == ("active", "Asia/Tokyo", "18:00")
    run = workers.json("schedules", "run-now", "report")
    shown = workers.json("schedules", "show", "report")
    assert [(tick["job_id"], tick["manual"]) for tick in shown["ticks"]] == [(run["job_id"], True)]
    assert "by hand" in workers.run("schedules", "show", "report").stdout
    assert "0 3 * * * Asia/Tokyo" in workers.run("schedules", "list").stdout
    bad = workers.run("schedules", "add", "x", "email", mail, "--cron", "0 25 * * *")
    assert (bad.returncode, bad.stderr.count("\n")) == (2, 1)
    assert bad.stderr.startswith("error: schedule x: cron: '0 25 * * *'")
    gone = workers.run("schedules", "pause", "nothing")
    assert (gone.returncode, gone.stderr) == (2, "error: no schedule 'nothing'; see them with: rqjobs schedules list\n")


def test_declared_schedules_follow_the_code_at_a_worker_s_start(workers: Workers, redis: redis_py.Redis) -> None:
    def state(cron: str | None) -> dict[str, str | None]:
        worker = workers.start("note-tick", **IMPORT, **({"TEST_CRON": cron} if cron else {}))
        expected = {"mine": None} | ({"declared": cron} if cron else {})
        found = eventually(lambda: (now := {s.name: s.cron for s in schedules.list_schedules()}) == expected and now)
        worker.terminate()
        assert worker.wait(60) == 0
        return found

    schedules.add("mine", MAIL, every="1h")
    state("0 3 * * *")
    declared = schedules.get_schedule("declared")
    assert (declared.source, declared.overlap, declared.timezone) == ("code", "skip", "Europe/Berlin")
    state("0 4 * * *")
    schedules.pause("declared")
    state("0 5 * * *")
    assert schedules.get_schedule("declared").state == "paused"
    state(None)


def run_ticks(workers: Workers, folder: Path, *, seconds: int, kills: int, restarts: int, crew: int) -> None:
    """Ticks of 1 s while workers are killed and Redis restarts: each tick has one job, and each job is done."""
    log = folder / "ticks"
    start = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
    job = note_tick.job({"file": str(log)})
    schedules.add("second", job, every="1s", starts=start, ends=start + timedelta(seconds=seconds - 1), catch_up="all")
    running = [workers.start("note-tick", RQJOBS_LEASE="3", **IMPORT) for _ in range(crew)]
    events = sorted(
        [(seconds * (n + 1) / (kills + 1), "kill") for n in range(kills)]
        + [(seconds * (n + 1) / (restarts + 1) + 0.3, "restart") for n in range(restarts)]
    )
    for at, what in events:  # seconds from the first tick
        time.sleep(max(0.0, start.timestamp() + at - time.time()))
        if what == "kill":
            killed = running.pop(0)
            killed.send_signal(signal.SIGKILL)
            killed.wait()
            running.append(workers.start("note-tick", RQJOBS_LEASE="3", **IMPORT))
        else:
            stop_server(folder / "redis")
            ensure_server(folder / "redis")
    with redis_py.Redis.from_url(f"unix://{ensure_server(folder / 'redis')}") as client:
        eventually(lambda: client.zscore(keys.SCHEDULES_DUE, "second") == float("inf"), timeout=120)
        jobs = {key.decode()[7:] for key in client.keys("rq:job:*")}
        ticks = [json.loads(client.hget(f"rq:job:{job_id}", "meta") or b"{}")["tick"] for job_id in jobs]
        assert sorted(ticks) == [int(start.timestamp()) + n for n in range(seconds)]
        eventually(lambda: log.exists() and set(log.read_text().split()) == jobs, timeout=120)
        eventually(lambda: all(client.hget(f"rq:job:{job_id}", "status") == b"finished" for job_id in jobs))
    for worker in running:
        worker.terminate()
    for worker in running:
        worker.wait(60)
    noted = Counter(log.read_text().split())  # a run that is killed after its line is run again: at least once
    assert sum(noted.values()) - seconds <= kills * 10


@pytest.fixture
def own_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis of this test's own, which may be restarted."""
    folder = tmp_path / "redis"
    monkeypatch.setenv("REDIS_URL", f"unix://{ensure_server(folder)}")
    use_settings(None)
    yield
    stop_server(folder)


def test_each_tick_once_over_kills_and_a_restart_of_redis(workers: Workers, own_redis: None, tmp_path: Path) -> None:
    run_ticks(workers, tmp_path, seconds=15, kills=3, restarts=1, crew=3)


@pytest.mark.slow
def test_each_of_200_ticks_once_over_60_kills_and_two_restarts(
    workers: Workers, own_redis: None, tmp_path: Path
) -> None:
    run_ticks(workers, tmp_path, seconds=200, kills=60, restarts=2, crew=4)


def test_a_job_of_a_tick_runs(workers: Workers, redis: redis_py.Redis, tmp_path: Path) -> None:
    schedules.add("once", note_tick.job({"file": str(tmp_path / "log")}), every="1h")
    workers.start("note-tick", **IMPORT)
    assert wait_for_result(schedules.run_now("once")) == "noted"
