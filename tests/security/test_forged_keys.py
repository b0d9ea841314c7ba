"""Every key of docs/lifecycle.md as another type, and as garbage of its own: pages and commands go on and name it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
import redis as redis_py
from click.testing import CliRunner
from flask.testing import FlaskClient

from rqjobs import enqueue
from rqjobs.broker import keys
from rqjobs.broker.connection import get_connection
from rqjobs.broker.rq_schema import key
from rqjobs.cli import cli
from rqjobs.database import get_engine
from rqjobs.database.schema import init_database
from rqjobs.dead_letters.bulk_requeue import start
from rqjobs.errors import RQJobsError
from rqjobs.schedules import store
from rqjobs.schedules.leader import ScheduleThread
from rqjobs.worker.run import run_worker
from tests.integration.test_redis_keys import ROWS
from tests.integration.test_unreadable_records import COMMANDS, PAGES
from tests.support.dashboard import webhook
from tests.support.hostile import kill
from tests.support.tasks import CoroutineTask, Task
from tests.support.workers import eventually


def every_key(parts: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Each key of the page with its type, its variable parts filled in; the test's own sign-in is left out."""
    known = {"minute": str(int(time.time() // 60)), "worker": "w", **parts}
    for row in ROWS:
        values = dict(known)
        if row.pattern.startswith("rqjobs:repair:"):
            values["id"] = parts.get("bulk", "x")
        if row.pattern.startswith("rqjobs:schedules:"):
            values["name"] = "nightly"
        if not row.pattern.startswith("rqjobs:session:"):
            yield (
                "".join(
                    values.get(part[1:-1], "x") if part[:1] == "<" else part
                    for part in re.split(r"(<\w+>)", row.pattern)
                ),
                row.type,
            )


def spoil(redis: redis_py.Redis, name: str, kind: str) -> None:
    """Makes ``name`` a key of another type than ``kind``."""
    redis.delete(name)
    if kind == "string":
        redis.rpush(name, "forged")
    else:
        redis.set(name, "forged")


@pytest.fixture
def planted(redis: redis_py.Redis) -> dict[str, str]:
    """Something to read for every page and command; ids by what they are."""
    init_database(get_engine())
    dead, waiting, delayed, done = (
        enqueue(webhook()),
        enqueue(webhook()),
        enqueue(webhook(), delay="1h"),
        enqueue(webhook()),
    )
    kill(dead.id, "webhooks", "ValueError: honest", redis)
    redis.lrem(key("queue", "webhooks"), 1, done.id)
    redis.hset(done.key, "status", "finished")
    redis.zadd(key("finished", "webhooks"), {done.id: time.time() + 60})
    redis.hset(
        key("worker", "w"), mapping={"birth": "2026-01-01T00:00:00.000000Z", "queues": "webhooks", "state": "idle"}
    )
    redis.sadd(key("workers"), key("worker", "w"))
    redis.sadd(key("workers", "webhooks"), key("worker", "w"))
    redis.zadd(keys.PARKED, {"https://a.example:443": time.time() + 3600})
    redis.zadd(keys.DESTINATIONS, {"https://a.example:443": time.time()})
    redis.hset(f"{keys.PREFIX}:webhooks:breaker:https://a.example:443", mapping={"f": 3, "open": time.time() + 60})
    store.add("nightly", webhook(), every=timedelta(days=1))
    bulk = start("abc", "title", "dry-run", connection=redis)
    return {"dead": dead.id, "waiting": waiting.id, "delayed": delayed.id, "done": done.id, "bulk": bulk.id}


def pages(planted: dict[str, str]) -> list[str]:
    ids = [planted[name] for name in ("dead", "waiting", "delayed")]
    return [
        *PAGES, *(f"/jobs/{each}" for each in ids), *(f"/jobs/{each}/live" for each in ids),
        f"/jobs/{planted['dead']}/edit", f"/dead/repairs/{planted['bulk']}", f"/dead/repairs/{planted['bulk']}/live",
        "/webhooks/", "/exports/", "/analytics/", "/health", "/ready", f"/rq/0/view/job/{planted['dead']}",
        "/rq/0/view/jobs/webhooks/failed/8/asc/1", f"/rq/0/data/job/{planted['dead']}.json", "/rq/0/data/queues.json",
        "/rq/0/data/jobs/webhooks/rate_limited/8/asc/1.json",
    ]  # fmt: skip


def commands(planted: dict[str, str]) -> list[tuple[str, ...]]:
    return [
        *COMMANDS, ("health", "--json"), ("doctor",), ("jobs", "show", planted["dead"]),
        ("failed", "show", planted["dead"]), ("failed", "groups", "--json"), ("schedules", "list"),
        ("schedules", "show", "nightly"), ("webhooks", "destinations"), ("webhooks", "endpoints"),
        ("webhooks", "deliveries"), ("exports", "list"), ("queues",),
    ]  # fmt: skip


def run(command: tuple[str, ...]) -> tuple[BaseException | None, str]:
    done = CliRunner().invoke(cli, command, standalone_mode=False)
    return done.exception, done.output


def walk(client: FlaskClient, pages: Iterable[str], commands: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """What of these pages and commands does not end as it is documented."""
    for page in pages:
        answer = client.get(page, follow_redirects=True)
        if answer.status_code >= 500:
            yield f"{page}: {answer.status_code}"
        answer.close()
    for command in commands:
        error, output = run(command)
        if error is not None and not isinstance(error, RQJobsError):
            yield f"{' '.join(command)}: {error!r}"
        if "\x1b]0;" in output:
            yield f"{' '.join(command)}: {output}"


GARBAGE: dict[str, Callable[[redis_py.Redis, str], Any]] = {
    "string": lambda redis, name: redis.set(name, b"\xff" * 100),
    "list": lambda redis, name: redis.rpush(name, b"\xff", "", "x" * 10_000, "[]"),
    "set": lambda redis, name: redis.sadd(name, b"\xff", "", "a\r\nb", "\x1b]0;x\x07"),
    "sorted set": lambda redis, name: redis.zadd(name, {b"\xff": float("inf"), "": float("-inf"), "\x1b]0;x": -1}),
    "hash": lambda redis, name: redis.hset(name, mapping={b"\xff": b"\xfe", "": "", "webhooks/dead": "-1", "x": "["}),
    "stream": lambda redis, name: redis.xadd(name, {b"\xff": b"\xff"}),
}


@contextmanager
def put_back(redis: redis_py.Redis, name: str) -> Iterator[None]:
    kept = redis.dump(name)
    redis.delete(name)
    yield
    redis.delete(name)
    if kept:
        redis.restore(name, 0, kept)


READ = (
    "rqjobs:paused", "rqjobs:holds", "rqjobs:totals:webhooks", "rqjobs:metrics", "rqjobs:repairs",
    "rqjobs:webhooks:parked", "rqjobs:schedules:due", "rq:queues", "rq:workers", "rq:workers:webhooks",
    "rq:queue:webhooks", "rq:scheduled:webhooks", "rq:wip:webhooks", "rq:failed:webhooks", "rq:finished:webhooks",
)  # fmt: skip
"""Keys that many pages and commands read."""
SHORT_PAGES = ("/live", "/metrics", "/queues/webhooks?state=delayed", "/dead/", "/rq/0/data/queues.json")
SHORT_COMMANDS = (("failed", "list"), ("schedules", "list"))


def test_a_key_of_the_wrong_type_is_named_and_the_rest_continues(
    redis: redis_py.Redis, client: FlaskClient, planted: dict[str, str]
) -> None:
    kinds = dict(every_key({"lane": "webhooks", "queue": "webhooks"}))
    for name in READ:
        with put_back(redis, name):
            spoil(redis, name, kinds[name])
            assert list(walk(client, SHORT_PAGES, SHORT_COMMANDS)) == [], name
            assert f"(unreadable) {name}: it should be a {kinds[name]}" in run(("doctor",))[1]
            if name in HEALTH:
                done = CliRunner().invoke(cli, ["health"], standalone_mode=False)
                assert done.return_value == 1
                assert f"(unreadable) {name}" in done.output
                page = client.get("/").text
                assert f"(unreadable) {name}: it should be a {kinds[name]}. Fix: " in page
                assert "webhooks" in page
    assert "(unreadable)" not in run(("doctor",))[1] + run(("health",))[1] + client.get("/").text


HEALTH = {"rqjobs:paused", "rqjobs:holds", "rqjobs:totals:webhooks", "rq:workers:webhooks", "rq:queue:webhooks"}
"""Those of them that the health of queues is made of."""


@pytest.mark.slow
def test_every_key_of_another_type_or_with_garbage(
    redis: redis_py.Redis, client: FlaskClient, planted: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    broke: list[str] = []
    tried = 0
    parts = {"id": planted["dead"], "bulk": planted["bulk"], "lane": "webhooks", "queue": "webhooks",
             "destination": "https://a.example:443", "execution": "e"}  # fmt: skip
    for name, kind in every_key(parts):
        for write in (lambda: spoil(redis, name, kind), lambda: GARBAGE[kind](redis, name)):  # noqa: B023
            with put_back(redis, name):
                write()
                broke += [f"{name}: {each}" for each in walk(client, pages(planted), commands(planted))]
                tried += 1
    assert broke == []
    assert tried >= 120
    with capsys.disabled():
        print(f"\nforged keys: {tried} x {len(pages(planted)) + len(commands(planted))} pages and commands, 0 open")


def test_a_change_that_meets_a_key_of_another_type_is_refused_with_the_fix(
    redis: redis_py.Redis, client: FlaskClient, token: str
) -> None:
    redis.set("rqjobs:paused", "forged")
    answer = client.post("/queues/webhooks/pause", data={"csrf_token": token})
    assert answer.status_code == 422
    assert "SADD rqjobs:paused" in answer.text
    assert "rqjobs doctor" in answer.text


def see_jobs_of_another_queue_done(redis: redis_py.Redis) -> None:
    """A worker of two queues does all kinds of jobs of the one whose keys are whole."""
    failing = CoroutineTask(do="fail", args={"times": 1})
    jobs = [enqueue(CoroutineTask()), enqueue(failing, attempts=2, backoff="fixed:0s")]
    jobs.append(enqueue(CoroutineTask(), delay="0.01s"))
    with suppress(redis_py.exceptions.ResponseError):
        enqueue(Task())

    def done() -> bool:  # a burst ends before what is delayed is due
        assert run_worker(["tasks", "coroutines"], burst=True) == 0
        return {redis.hget(job.key, "status") for job in jobs} == {b"finished"}

    eventually(done)


BROKEN_BEFORE = ("rq:queues", "rq:workers", "rq:workers:tasks", "rq:scheduler-lock:tasks")
HOLD = {"queue": "coroutines", "scope": "", "dependency": "d", "reason": "r"}


@pytest.mark.parametrize("name", BROKEN_BEFORE)
def test_workers_run_beside_a_key_of_the_wrong_type(redis: redis_py.Redis, configure: Any, name: str) -> None:
    configure(RQJOBS_IMPORT="tests.support.tasks")
    redis.rpush(name, "forged")
    see_jobs_of_another_queue_done(redis)


@pytest.mark.parametrize(
    "value", ["{}", "[]", "x", json.dumps(HOLD), json.dumps({**HOLD, "next": 9e99, "out": {"a": 1}})]
)
def test_an_invalid_hold_holds_no_queue(redis: redis_py.Redis, configure: Any, value: str) -> None:
    configure(RQJOBS_IMPORT="tests.support.tasks")
    redis.hset(keys.HOLDS, mapping={"coroutines": value, "tasks": value})
    see_jobs_of_another_queue_done(redis)
    assert "HDEL rqjobs:holds" in run(("doctor",))[1]


@pytest.mark.slow
def test_workers_run_beside_all_keys_of_the_wrong_type(redis: redis_py.Redis, configure: Any) -> None:
    configure(RQJOBS_IMPORT="tests.support.tasks")
    for name, kind in every_key({"lane": "tasks", "queue": "tasks"}):
        for write in (spoil, lambda redis, name, kind: GARBAGE[kind](redis, name)):
            redis.flushall()
            if name != "rq:suspended":  # whatever its type, it suspends all workers
                write(redis, name, kind)
            see_jobs_of_another_queue_done(redis)


def test_schedules_run_beside_forged_ones(redis: redis_py.Redis) -> None:
    store.add("nightly", webhook(), cron="* * * * *")
    store.add("broken", webhook(), cron="* * * * *")
    redis.set(keys.schedule("broken"), "forged")
    redis.set(keys.schedule("another"), "forged")
    forged: dict[Any, float] = {b"\xff": -1.0, "": float("-inf"), "another": 5.0, "broken": 1.0}
    redis.zadd(keys.SCHEDULES_DUE, {**forged, "nightly": int(time.time()) // 60 * 60})
    leader = ScheduleThread(get_connection(), lambda: True)
    leader.look()
    assert redis.llen("rq:queue:webhooks") == 1
    assert [each.name for each in store.list_schedules(connection=redis)] == ["nightly"]
