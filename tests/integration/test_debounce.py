"""Debounce: later calls with the same id replace the payload of a job that has not begun, and restart its wait."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
import redis as redis_py
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rqjobs import DuplicateJob, InvalidJob, enqueue, enqueue_batch, enqueue_many
from rqjobs.broker.rq_schema import fetch_job, payload_of
from rqjobs.cli import cli
from rqjobs.database import get_engine
from rqjobs.database.schema import init_database
from rqjobs.outbox.relay import relay
from rqjobs.testing import capture, drain
from tests.support.tasks import Task, notes
from tests.support.workers import Workers, eventually


def mark(redis: redis_py.Redis, job_id: str) -> str:
    found = payload_of(fetch_job(job_id, redis))
    assert found
    return found[1]["mark"]


def due(redis: redis_py.Redis, job_id: str) -> float | None:
    """Seconds until the job is due."""
    score = redis.zscore("rq:scheduled:tasks", job_id)
    seconds, micro = redis.time()
    return None if score is None else score - seconds - micro / 1e6


def test_ten_thousand_calls_make_one_run_with_the_last_payload(
    redis: redis_py.Redis, workers: Workers, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKS_LOG", str(tmp_path / "log"))
    workers.start("tasks", RQJOBS_IMPORT="tests.support.tasks")
    for start in range(0, 10_000, 500):
        enqueue_many([Task(mark=str(n)) for n in range(start, start + 500)], job_id="d", debounce="5s")
    assert fetch_job("d", redis).absorbed == 9_999
    eventually(lambda: redis.hget("rq:job:d", "status") == b"finished")
    assert [words[:3] for words in notes(tmp_path / "log")] == [["9999", "1", "begins"], ["9999", "1", "ends"]]


def test_each_call_restarts_the_wait_ten_times_its_length_at_most(redis: redis_py.Redis) -> None:
    for number in range(3):
        enqueue(Task(mark=str(number)), job_id="d", debounce=timedelta(minutes=10))
        assert 590 < (due(redis, "d") or 0) <= 600
    redis.hincrbyfloat("rq:job:d", "debounced_since", -5_700)  # the first call was 95 minutes ago
    enqueue(Task(mark="last"), job_id="d", debounce="10m")
    assert 200 < (due(redis, "d") or 0) <= 300
    assert (mark(redis, "d"), fetch_job("d", redis).absorbed) == ("last", 3)


def test_a_job_in_its_queue_takes_the_payload_and_keeps_its_place(redis: redis_py.Redis) -> None:
    enqueue(Task(mark="1"), job_id="d", debounce="1h")
    redis.zrem("rq:scheduled:tasks", "d")
    redis.hset("rq:job:d", "status", "queued")
    redis.rpush("rq:queue:tasks", "d")
    enqueue(Task(mark="2"), job_id="d", debounce="1h")
    assert (mark(redis, "d"), due(redis, "d"), redis.lrange("rq:queue:tasks", 0, -1)) == ("2", None, [b"d"])
    assert redis.hget("rq:job:d", "status") == b"queued"


@pytest.mark.parametrize("outbox", [False, True])
def test_calls_while_it_runs_make_one_more_job(redis: redis_py.Redis, outbox: bool) -> None:
    init_database(get_engine())

    def call(text: str) -> None:
        if not outbox:
            enqueue(Task(mark=text), job_id="d", debounce="1h")
            return
        with get_engine().begin() as transaction:
            enqueue(Task(mark=text), job_id="d", debounce="1h", outbox=transaction)
        relay()

    call("1")
    redis.hset("rq:job:d", "status", "started")
    call("2")
    call("3")
    assert (mark(redis, "d"), mark(redis, "d-again"), fetch_job("d-again", redis).absorbed) == ("1", "3", 1)
    redis.hset("rq:job:d", "status", "finished")
    call("4")  # the other one waits still
    assert (mark(redis, "d"), mark(redis, "d-again")) == ("1", "4")
    redis.hset("rq:job:d-again", "status", "finished")
    call("5")
    assert (mark(redis, "d"), fetch_job("d", redis).absorbed) == ("5", 0)


def test_calls_while_both_run_are_refused(redis: redis_py.Redis) -> None:
    enqueue(Task(), job_id="d", debounce="1h")
    redis.hset("rq:job:d", "status", "started")
    enqueue(Task(), job_id="d", debounce="1h")
    redis.hset("rq:job:d-again", "status", "started")
    with pytest.raises(DuplicateJob, match="d-again"):
        enqueue(Task(), job_id="d", debounce="1h")


def test_without_an_id_calls_of_the_same_content_are_one(redis: redis_py.Redis) -> None:
    one, two, other = (enqueue(Task(mark=text), debounce="1h") for text in ("a", "a", "b"))
    assert one.id == two.id != other.id
    assert redis.zcard("rq:scheduled:tasks") == 2


def test_another_lane_with_the_same_id_is_refused(redis: redis_py.Redis) -> None:
    enqueue(Task(), job_id="d", debounce="1h")
    enqueue(Task(), job_id="d", debounce="1h", priority="high")  # as the job that comes after it
    assert redis.hget("rq:job:d", "origin") == b"tasks"
    assert redis.hget("rq:job:d-again", "origin") == b"tasks:high"


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"debounce": "1h", "delay": "1h"}, "debounce: excludes delay"),
        ({"debounce": "1h", "unique": True}, "debounce: excludes unique"),
        ({"debounce": 3600}, "debounce: .*3600s"),
        ({"debounce": "0s"}, "debounce: must be longer than 0"),
        ({"debounce": "1h", "job_id": "x" * 123}, "more than 122 characters"),
    ],
)
def test_wrong_options_are_named(redis: redis_py.Redis, options: dict[str, Any], fault: str) -> None:
    with pytest.raises(InvalidJob, match=fault):
        enqueue(Task(), **options)
    assert redis.keys("rq:*") == []


def test_members_of_a_batch_are_refused(redis: redis_py.Redis) -> None:
    with pytest.raises(InvalidJob, match="not in a batch"):
        enqueue_batch([Task()], debounce="1h")


def test_captured_and_drained_jobs(redis: redis_py.Redis) -> None:
    with capture() as captured:
        for number in range(3):
            enqueue(Task(mark=str(number)), job_id="d", debounce="1h")
    assert [item.job.mark for item in captured.of(Task)] == ["2"]
    for number in range(3):
        enqueue(Task(mark=str(number)), job_id="d", debounce="1h")
    assert len(drain("tasks").runs) == 1


def test_the_command_shows_the_absorbed_calls(redis: redis_py.Redis) -> None:
    words = ["enqueue", "tasks", "{}", "--id", "d", "--debounce", "1h"]
    for _ in range(3):
        assert CliRunner().invoke(cli, words).exit_code == 0
    shown = CliRunner().invoke(cli, ["jobs", "show", "d"])
    assert "2 later calls absorbed (debounce)" in shown.output
    assert json.loads(CliRunner().invoke(cli, ["jobs", "show", "d", "--json"]).output)["absorbed"] == 2


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["call", "begin", "end"]), max_size=25))
def test_against_a_model(redis: redis_py.Redis, steps: list[str]) -> None:
    """Whatever the order of calls, starts and ends: the run that begins last has the payload of the last call."""
    redis.flushdb()
    ids, number, last_begun = ("d", "d-again"), 0, -1
    for what in steps:
        states = {one: redis.hget(f"rq:job:{one}", "status") for one in ids}
        if what == "call" and set(states.values()) != {b"started"}:
            enqueue(Task(mark=str(number)), job_id="d", debounce="1h")
            number += 1
        for one in ids:
            if what == "begin" and states[one] == b"scheduled":
                redis.zrem("rq:scheduled:tasks", one)
                redis.hset(f"rq:job:{one}", "status", "started")
                begun = int(mark(redis, one))
                assert begun > last_begun
                last_begun = begun
            elif what == "end" and states[one] == b"started":
                redis.hset(f"rq:job:{one}", "status", "finished")
                break
    waiting = [one for one in ids if redis.hget(f"rq:job:{one}", "status") == b"scheduled"]
    assert len(waiting) == (last_begun < number - 1)
    for one in waiting:
        assert mark(redis, one) == str(number - 1)
