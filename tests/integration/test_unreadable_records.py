"""Forged records in Redis cost only themselves: every page, ``/metrics`` and every list goes on with the others."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis as redis_py
from click.testing import CliRunner
from flask import Flask
from flask.testing import FlaskClient

from rqjobs import WebhookJob, enqueue
from rqjobs.broker import keys
from rqjobs.cli import cli
from rqjobs.database import get_engine
from rqjobs.database.schema import init_database
from rqjobs.dead_letters import letters as dead_letters
from rqjobs.monitoring.queue_health import queue_health
from tests.support.dashboard import token_of
from tests.support.hostile import kill

GOOD_ERROR = "ValueError: the honest one"


def webhook() -> WebhookJob:
    return WebhookJob(webhook_id="w", event="a.b", url="https://a.example/", payload={})


def field(name: str, value: Any) -> Callable[[redis_py.Redis, str], None]:
    return lambda redis, job_id: redis.hset(f"rq:job:{job_id}", name, value) and None


def score(value: float) -> Callable[[redis_py.Redis, str], None]:
    def spoil(redis: redis_py.Redis, job_id: str) -> None:
        redis.zadd("rq:failed:webhooks", {job_id: value})
        redis.zadd("rq:scheduled:webhooks", {job_id: value})

    return spoil


def entry(job_id: bytes) -> Callable[[redis_py.Redis, str], None]:
    def spoil(redis: redis_py.Redis, known: str) -> None:
        redis.restore(b"rq:job:" + job_id, 0, redis.dump(f"rq:job:{known}"), replace=True)
        redis.zadd("rq:failed:webhooks", {job_id: time.time() + 60})
        redis.rpush("rq:queue:webhooks", job_id)

    return spoil


def garbage(name: str, fields: dict[Any, Any]) -> Callable[[redis_py.Redis, str], None]:
    return lambda redis, _id: redis.hset(name, mapping=fields) and None


def bad_worker(**fields: bytes | str) -> Callable[[redis_py.Redis, str], None]:
    def spoil(redis: redis_py.Redis, _id: str) -> None:
        redis.hset("rq:worker:w", mapping={"birth": "2026-01-01T00:00:00.000000Z", **fields})
        redis.sadd("rq:workers", "rq:worker:w")

    return spoil


def bad_bulk_requeue(redis: redis_py.Redis, _id: str) -> None:
    redis.hset(keys.bulk_requeue("r"), mapping={"id": "r", "total": "many"})
    redis.zadd(keys.BULK_REQUEUES, {"r": 1, b"\xff": 2})
    redis.set(keys.bulk_requeue("s"), "no hash")
    redis.zadd(keys.BULK_REQUEUES, {"s": 3})


MINUTE = keys.minute(int(time.time() // 60))
POISONS: dict[str, Callable[[redis_py.Redis, str], None]] = {
    **{
        f"{name}={str(value)[:20]}": field(name, value)
        for name, value in (
            ("status", "exploded"), ("created_at", "yesterday"), ("ended_at", "9"), ("enqueued_at", b"\xff"),
            ("timeout", "soon"), ("timeout", "9" * 30), ("description", b"\xff\xfe"), ("origin", b"\xff"),
            ("retry_intervals", "[" * 100_000), ("retries_left", "x"), ("meta", "[1]"), ("data", b"\xff\xfe"),
            ("meta", '{"progress": {"percent": 1e999}}'), ("worker_name", b"\xff"),
        )
    },
    "score inf": score(math.inf), "score -inf": score(-math.inf),
    "id with a blank": entry(b"a b"), "id not UTF-8": entry(b"\xff\xfe"), "empty id": entry(b""),
    "totals": garbage("rqjobs:totals:webhooks", {"failed": "many", b"\xff": b"\xff"}),
    "metrics": garbage(keys.METRICS, {"webhooks/t99": "1", b"\xff/w1": "x", "webhooks/": "1"}),
    "minute": garbage(MINUTE, {"webhooks/dead": "x", "webhooks/t99": "1"}),
    "worker's times": bad_worker(birth="never", last_heartbeat="2026-01-01T00:00:00", hostname=b"\xff"),
    "worker's numbers": bad_worker(successful_job_count="x", pid="²", rqjobs_slots='{"webhooks": 1e999}'),
    "repair": bad_bulk_requeue,
    "results": lambda redis, job_id: redis.delete(f"rq:results:{job_id}") and redis.set(f"rq:results:{job_id}", "x"),
    "results entry": lambda redis, job_id: redis.xadd(f"rq:results:{job_id}", {"type": "x", b"\xff": b"\xff"}) and None,
}  # fmt: skip

PAGES = (
    "/", "/live", "/dead/", "/dead/?find=a+b", "/jobs/?find=connection+refused", "/metrics", "/rq/",
    *(f"/queues/webhooks?state={state}" for state in ("waiting", "running", "delayed", "dead", "done")),
    "/rq/0/view/workers", "/rq/0/data/workers.json",
    *(f"/rq/0/data/jobs/webhooks/{each}/8/asc/1.json" for each in ("queued", "failed", "finished", "scheduled")),
)  # fmt: skip
COMMANDS = (
    ("failed", "list"), ("failed", "list", "--json"), ("failed", "list", "--reason", "honest"), ("failed", "groups"),
    ("health",),
)  # fmt: skip


@pytest.mark.parametrize("poison", POISONS.values(), ids=POISONS)
def test_a_forged_record_fails_only_itself(
    redis: redis_py.Redis, client: FlaskClient, poison: Callable[[redis_py.Redis, str], None]
) -> None:
    good, bad, waiting = (enqueue(webhook()) for _ in range(3))
    kill(good.id, "webhooks", GOOD_ERROR, redis)
    kill(bad.id, "webhooks", "ValueError: of the forged one", redis)
    poison(redis, bad.id)
    for page in PAGES:
        answer = client.get(page, follow_redirects=True)
        assert answer.status_code < 500, (page, answer.text)
    assert good.id in client.get("/queues/webhooks?state=dead").text
    assert waiting.id in client.get("/queues/webhooks?state=waiting").text
    assert client.get(f"/jobs/{bad.id}").status_code in (200, 302, 422)
    for command in COMMANDS:
        done = CliRunner().invoke(cli, command, standalone_mode=False)
        assert done.exception is None, (command, done.exception)
        assert good.id in done.output or command[-1] in ("health", "groups"), (command, done.output)
    assert "honest" in CliRunner().invoke(cli, ["failed", "groups"]).output
    found = next(queue for queue in queue_health(redis) if queue.name == "webhooks")
    assert found.failed >= 2


@pytest.mark.parametrize("job_id", ["a b", "\x1b]0;x\x07", "", "x" * 5000, "..", "ä", "a:b"])
def test_an_entry_that_is_not_an_id_is_listed_explained_and_purged(redis: redis_py.Redis, job_id: str) -> None:
    known = enqueue(webhook())
    redis.restore(f"rq:job:{job_id}", 0, redis.dump(f"rq:job:{known.id}"))
    redis.hset(f"rq:job:{job_id}", "status", "failed")
    redis.zadd("rq:failed:webhooks", {job_id: time.time() + 60})
    (letter,) = dead_letters.dead_letters()
    assert letter.job_id == job_id
    shown = CliRunner().invoke(cli, ["failed", "show", "--", job_id], standalone_mode=False)
    assert shown.exception is None or type(shown.exception).__name__ in ("JobNotFound", "UnreadableJob")
    purged = CliRunner().invoke(cli, ["failed", "purge", "--", job_id], standalone_mode=False)
    assert purged.exception is None
    assert dead_letters.count() == 0


def test_a_dead_letter_without_a_queue_in_its_record_is_purged(redis: redis_py.Redis) -> None:
    job = enqueue(webhook())
    kill(job.id, "webhooks", GOOD_ERROR, redis)
    redis.hset(f"rq:job:{job.id}", mapping={"origin": b"\xff", "status": "?"})
    (letter,) = dead_letters.dead_letters()
    assert letter.reason.startswith("its record cannot be read")
    assert dead_letters.purge([job.id]) == [job.id]
    assert not redis.keys(f"rq:job:{job.id}")


ODD = ("a b", "order.created", "%ff\x01", "..", "-1", "9" * 30, "nan", "x" * 3000, "[\\'\"<b>…", "\ud800", "a/b?*&+")


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_no_page_answers_500_for_odd_input(
    redis: redis_py.Redis, app: Flask, client: FlaskClient, token: str, odd: str
) -> None:
    init_database(get_engine())
    adapter = app.url_map.bind("localhost")
    odd = odd.encode(errors="surrogatepass").decode(errors="replace")
    names = ("find", "state", "lane", "page", "queue", "to", "code", "user", "event", "outcome", "since", "until",
             "zone", "rate", "mode", "title", "payload", "hours", "next", "per", "compare", "limit")  # fmt: skip
    for rule in app.url_map.iter_rules():
        if rule.endpoint in ("static", "rq_dashboard.static", "auth.logout"):
            continue
        numbers = {name for name, each in rule._converters.items() if type(each).__name__ == "IntegerConverter"}
        values = {name: 0 if name in numbers else odd for name in rule._converters}
        path = adapter.build(rule.endpoint, {**(rule.defaults or {}), **values})
        if "GET" in (rule.methods or ()):
            answer = client.get(path, query_string=dict.fromkeys(names, odd))
        else:
            answer = client.post(path, data={**dict.fromkeys(names, odd), "csrf_token": token})
        assert answer.status_code < 500, (rule.endpoint, path, answer.text)
        answer.close()
        if answer.status_code == 403:
            token = token_of(client.get("/").text)
