"""Jobs that die: a queue most of whose jobs die is unhealthy, and what is dropped of the dead letters is counted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest
import redis as redis_py
from click.testing import CliRunner
from flask.testing import FlaskClient

from rqjobs import enqueue, enqueue_many
from rqjobs.broker import keys
from rqjobs.cli import cli
from rqjobs.config.settings import get_settings
from rqjobs.monitoring import alerts
from rqjobs.monitoring.alerts import Alert, check, on_alert
from rqjobs.monitoring.metrics import Sample, record
from rqjobs.monitoring.queue_health import QueueHealth, queue_health
from rqjobs.worker.rescue import rescue
from rqjobs.worker.run import run_worker
from tests.support.fleet import worker
from tests.support.tasks import Task
from tests.support.workers import Workers


def health_of(name: str) -> QueueHealth:
    return next(queue for queue in queue_health() if queue.name == name)


def ended(redis: redis_py.Redis, *, done: int, dead: int, minutes_ago: int = 0) -> None:
    now = redis.time()[0] - 60.0 * minutes_ago
    record([*[Sample("email", "done", 1, 0)] * done, *[Sample("email", "dead", 1, 0)] * dead], redis, now=now)


def test_a_queue_is_unhealthy_if_most_of_its_recent_jobs_died(redis: redis_py.Redis, client: FlaskClient) -> None:
    ended(redis, done=3, dead=8, minutes_ago=13)
    (reason,) = health_of("email").reasons
    assert reason.startswith("8 of 11 jobs that ended in the last 15 minutes died: see why with rqjobs failed groups")
    done = CliRunner().invoke(cli, ["health"], standalone_mode=False)
    assert done.return_value == 1
    assert "email: 8 of 11 jobs" in done.output
    page = client.get("/").text
    assert page.count("8 of 11 jobs") == 1
    assert page.count('class="dot bad"') == 1
    assert "/dead/?queue=email" in page
    assert 'rqjobs_queue_healthy{queue="email"} 0.0' in client.get("/metrics").text


@pytest.mark.parametrize(
    "before",
    [
        {"done": 0, "dead": 4},
        {"done": 5, "dead": 5},
        {"done": 100, "dead": 20},
        {"done": 0, "dead": 9, "minutes_ago": 15},
    ],
)
def test_few_deaths_or_old_ones_are_healthy(redis: redis_py.Redis, before: dict[str, int]) -> None:
    ended(redis, **before)
    assert health_of("email").healthy


def test_minutes_are_those_of_redis(redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose clock is an hour ahead counts into the same minute, and a reader's clock changes nothing."""
    record([Sample("email", "dead", 1, 0)] * 5, redis)
    ahead = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: ahead)
    record([Sample("email", "dead", 1, 0)] * 4, redis)
    assert health_of("email").died_recently == 9


@pytest.fixture
def engine(request: pytest.FixtureRequest, workers: Workers) -> Callable[[], None]:
    def run() -> None:
        if request.param == "threads":
            run_worker(["tasks"], burst=True)
        else:
            done = workers.run("worker", "tasks", "--burst", "--engine", "rq", RQJOBS_IMPORT="tests.support.tasks")
            assert done.returncode == 0, done.stderr

    return run


@pytest.mark.parametrize("engine", ["threads", "rq"], indirect=True)
def test_dropped_dead_letters_are_counted(
    redis: redis_py.Redis, configure: Callable[..., None], engine: Callable[[], None]
) -> None:
    configure(RQJOBS_KEEP_FAILED="3", RQJOBS_IMPORT="tests.support.tasks")
    enqueue_many([Task(do="fail")] * 5, attempts=1)
    enqueue_many([Task(do="fail")] * 4, attempts=1, priority="high")
    engine()
    assert redis.hgetall("rqjobs:totals:tasks") == {b"failed": b"9", b"dropped": b"3"}
    assert health_of("tasks").dropped == 3
    assert health_of("tasks").died_recently == 9
    assert redis.zcard("rq:failed:tasks") == 3


def test_jobs_of_dead_workers_are_counted_too(redis: redis_py.Redis, configure: Callable[..., None]) -> None:
    configure(RQJOBS_KEEP_FAILED="3", RQJOBS_IMPORT="tests.support.tasks")
    while redis.info("server")["uptime_in_seconds"] < 5:  # before that nobody is taken for dead
        time.sleep(0.2)
    for number in range(5):
        enqueue(Task(), job_id=f"t{number}", attempts=1)
        redis.hset(f"rq:job:t{number}", mapping={"status": "started", "worker_name": "gone"})
        redis.zadd("rq:wip:tasks", {f"t{number}:x": time.time() - 1})
    redis.delete("rq:queue:tasks")
    rescue(redis, ["tasks"], get_settings())
    found = health_of("tasks")
    assert (found.failed, found.failed_total, found.dropped, found.died_recently) == (3, 5, 2, 5)


@pytest.fixture
def told() -> Iterator[list[Alert]]:
    found: list[Alert] = []
    hook = on_alert(found.append)
    yield found
    alerts._hooks.remove(hook)


def test_dropped_dead_letters_are_shown_and_alerted(
    redis: redis_py.Redis, client: FlaskClient, told: list[Alert]
) -> None:
    worker(redis)
    check(redis)
    redis.hincrby("rqjobs:totals:webhooks", "dropped", 1500)
    redis.delete(keys.ALERT_TURN)
    check(redis)
    (alert,) = told
    assert (alert.kind, alert.subject) == ("dead-letters-dropped", "webhooks")
    assert "1,500 dead letters were deleted for good" in alert.text
    assert "RQJOBS_KEEP_FAILED=500" in alert.text
    redis.delete(keys.ALERT_TURN, keys.alert(alert.kind, alert.subject))
    check(redis)
    assert len(told) == 1
    output = CliRunner().invoke(cli, ["health"], standalone_mode=False).output
    assert "webhooks: 1,500 dead letters were deleted so far" in output
    (queue, *_) = json.loads(CliRunner().invoke(cli, ["health", "--json"], standalone_mode=False).output)["queues"]
    assert queue["dropped"] == 1500
    assert "1,500 dropped" in client.get("/").text
    assert "1,500 dead letters" in client.get("/queues/webhooks").text
    assert 'rqjobs_dead_dropped_total{queue="webhooks"} 1500.0' in client.get("/metrics").text
