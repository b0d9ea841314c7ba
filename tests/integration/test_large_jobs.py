"""Large jobs: one answer of Redis, and what a worker holds, are bounded by bytes; what is too large dies."""

from __future__ import annotations

import base64
import json
import os
import re
import time
import zlib

import psutil
import pytest

from rqjobs import enqueue_many
from rqjobs.broker.attempts import read_history
from rqjobs.broker.rq_schema import ENTRY, fetch_job
from rqjobs.config.settings import get_settings
from rqjobs.worker.queue_state import MAX_BYTES
from tests.support.tasks import CoroutineTask, Task
from tests.support.workers import eventually

ENV = {"RQJOBS_IMPORT": "tests.support.tasks"}


def large(model, count, size, **fields):
    """Jobs whose payload no compression makes smaller."""
    text = base64.b64encode(os.urandom(size * 3 // 4)).decode()
    return [model(mark=f"{n:05}", args={"text": f"{n:05}{text}"}, **fields) for n in range(count)]


def forged(redis, job_id, data, queue="tasks", **fields):
    """A job that anybody with access to Redis may have written."""
    hash_ = {"data": data, "created_at": "2026-01-01T00:00:00.000000Z", "origin": queue, "status": "queued"} | fields
    redis.hset(f"rq:job:{job_id}", mapping=hash_)
    redis.rpush(f"rq:queue:{queue}", job_id)


def call(queue="tasks", **payload):
    return json.dumps([ENTRY, None, [queue, payload], {}]).encode()


def test_large_jobs_stop_neither_their_own_queue_nor_another_one(workers, redis):
    limit = get_settings().rqjobs_max_payload - 200
    many = enqueue_many(large(CoroutineTask, 300, limit))
    enqueue_many([Task(mark=str(n)) for n in range(100)])
    redis.config_set("client-output-buffer-limit", "pubsub 33554432 8388608 60")
    worker = workers.start(**ENV)
    done = {b"completed": b"300"}, {b"completed": b"100"}
    highest = 0

    def all_done():
        nonlocal highest
        highest = max(highest, psutil.Process(worker.pid).memory_info().rss)
        return (redis.hgetall("rqjobs:totals:coroutines"), redis.hgetall("rqjobs:totals:tasks")) == done

    eventually(all_done)
    assert "redis is away" not in workers.logs()
    assert highest < 2**20 * 120 + 6 * MAX_BYTES
    assert not redis.llen("rq:queue:coroutines")
    assert len(many) == 300


def test_jobs_beyond_the_bytes_of_one_answer_stay_in_order(workers, redis, tmp_path, monkeypatch):
    log = tmp_path / "log"
    monkeypatch.setenv("TASKS_LOG", str(log))
    enqueue_many(large(Task, 40, 250_000))
    done = workers.run("worker", "tasks", "--burst", "--threads", "1", **ENV)
    assert done.returncode == 0, done.stderr
    marks = [line.split()[0] for line in log.read_text().splitlines()]
    assert list(dict.fromkeys(marks)) == [f"{n:05}" for n in range(40)]


def test_a_job_that_is_larger_than_one_answer_is_done(workers, redis, configure):
    configure(RQJOBS_MAX_PAYLOAD=str(20 * 2**20))
    enqueue_many(large(Task, 3, 6 * 2**20))
    done = workers.run("worker", "tasks", "--burst", **ENV)
    assert done.returncode == 0, done.stderr
    assert redis.hgetall("rqjobs:totals:tasks") == {b"completed": b"3"}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"x" * (40 * 2**20), "over 32 MiB"),
        (zlib.compress(call(mark="a" * (200 * 2**20)), 1), "over 32 MiB when it is inflated"),
        (zlib.compress(zlib.compress(call(mark="a" * (200 * 2**20)), 1)), "not JSON"),
    ],
    ids=["large", "bomb", "bomb-in-a-bomb"],
)
def test_a_job_that_is_too_large_is_dead_and_the_others_are_done(workers, redis, data, why):
    forged(redis, "forged", data)
    enqueue_many([Task(mark=str(n)) for n in range(20)])
    done = workers.run("worker", "tasks", "--burst", **ENV)
    assert done.returncode == 0, done.stderr
    assert redis.hgetall("rqjobs:totals:tasks") == {b"completed": b"20", b"failed": b"1"}
    redis.hset("rq:job:forged", "data", b"{}")
    assert why in str(read_history(fetch_job("forged", redis))[-1].error)


@pytest.mark.parametrize(
    ("job_id", "fields"),
    [
        ("nested", {"retry_intervals": "[" * 99_000}),
        ("nested-long", {"retry_intervals": "[" * 1_000_000}),
        ("x\r\nContent-Length: 0\r\n\r\nPOST / HTTP/1.1", {}),
        ("died", {"worker_died": "-1000000", "retries_left": "99999999", "retry_intervals": "[" * 99_000}),
    ],
)
def test_a_forged_job_ends_no_worker(workers, redis, job_id, fields):
    forged(redis, job_id, call(), **fields)
    enqueue_many([Task(mark=str(n)) for n in range(20)])
    done = workers.run("worker", "tasks", "--burst", **ENV)
    assert done.returncode == 0, done.stderr
    assert redis.hgetall("rqjobs:totals:tasks") == {b"completed": b"20", b"failed": b"1"}
    assert redis.hget(f"rq:job:{job_id}", "status") == b"failed"


def test_forged_executions_of_a_worker_do_not_end_it_when_it_reconnects(workers, redis):
    process = workers.start("tasks", **ENV)
    name = eventually(lambda: re.search(r"worker started name=(\w+)", workers.logs()))[1]
    redis.hset("rq:job:ex1", "origin", b"\xff\xfe")
    redis.set("rq:job:ex2", "of another type")
    redis.sadd(f"rq:worker:{name}:executions", "ex1:abcd", "ex2:abcd", b"\xff:abcd")
    for client in redis.client_list():
        if client["lib-name"] != "" or client["tot-cmds"] != "":
            redis.client_kill_filter(_id=client["id"], skipme=True)
    enqueue_many([Task(mark=str(n)) for n in range(20)])
    eventually(lambda: redis.hgetall("rqjobs:totals:tasks") == {b"completed": b"20"})
    assert process.poll() is None


@pytest.mark.parametrize("name", ["rqjobs:paused", "rqjobs:rate:tasks"])
def test_a_key_of_another_type_stops_no_queue(workers, redis, name):
    redis.set(name, "not ours")
    workers.start("tasks", RQJOBS_TASKS_RATE="1000/s", **ENV)
    enqueue_many([Task(mark=str(n)) for n in range(20)])
    eventually(lambda: redis.hgetall("rqjobs:totals:tasks") == {b"completed": b"20"})
    assert "redis is away" not in workers.logs()
    if name == "rqjobs:paused":
        eventually(lambda: f"key={name}" in workers.logs())


def test_a_worker_receives_pushes_and_commands_on_its_second_connection(workers, redis):
    workers.start("tasks", RQJOBS_IMPORT="tests.support.tasks tests.support.no_polling")
    eventually(lambda: "worker started" in workers.logs())
    time.sleep(0.5)
    for _ in range(3):  # also after each of its connections broke
        enqueue_many([Task(mark="a")])
        eventually(lambda: not redis.llen("rq:queue:tasks") and not redis.zcard("rq:wip:tasks"), timeout=20)
        pushes = [client for client in redis.client_list() if "P" in client["flags"]]
        redis.client_kill_filter(_id=pushes[0]["id"])
        time.sleep(0.5)
