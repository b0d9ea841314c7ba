"""The same jobs run by RQ's own worker and by the engine leave the same keys, types, fields and TTLs in Redis."""

from __future__ import annotations

import json
import re
import time
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rq import Callback, Queue, Repeat, Retry, SimpleWorker, get_current_job
from rq.group import Group
from rq.job import Dependency, JobStatus
from rq.rate_limit import RateLimit
from rq.serializers import JSONSerializer
from rq.webhook import Webhook

from rqjobs import enqueue
from rqjobs.broker.rq_schema import RegisteredJob, allow
from rqjobs.worker.claimed_job import RESULT_TTL
from rqjobs.worker.loop import WorkerLoop
from rqjobs.worker.run import run_worker
from tests.support.tasks import Task

_OWN = r"rq:(worker|scheduler|queue:.*:intermediate|clean)|rqjobs:|rq:workers"
"""Keys that say who works, not what became of jobs."""

_TIMES = ("created_at", "enqueued_at", "started_at", "ended_at", "last_heartbeat")
_VARYING = ("execution_id", "execution_started_at", "execution_ended_at", "worker_name", "attempt")
_PRESENT_OR_NOT = ("worker_died",)


class _RQ(SimpleWorker):
    job_class = RegisteredJob

    def procline(self, message):
        """The test's process keeps its title."""


@allow
def called(job, connection, *details):
    """A callback: says in Redis that it ran."""
    connection.incr("called")


@allow
def retry_result(times):
    """Asks for another run in RQ's own way, by what it returns."""
    return Retry(max=times, interval=100) if times else "done"


@allow
def look():
    """What Redis holds while a job runs."""
    job = get_current_job()
    redis = job.connection
    keys = sorted(key.decode().replace(job.id, "JOB") for key in redis.keys("rq:*"))
    (member,) = redis.zrange("rq:wip:tasks", 0, -1)
    execution = member.decode().partition(":")[2]
    fields = redis.hgetall(f"rq:execution:{member.decode()}")
    running = redis.hgetall(job.key)
    result = {
        "keys": [key.replace(execution, "EXECUTION") for key in keys if not re.match(_OWN, key)],
        "execution": sorted(field.decode() for field in fields),
        "job": sorted(field.decode() for field, value in running.items() if value),
        "status": running[b"status"].decode(),
        "of worker": redis.scard(f"rq:worker:{job.worker_name}:executions"),
        "expire": [redis.ttl(key) > 0 for key in redis.keys("rq:execution*")],
        "index": redis.zcard(f"rq:executions:{job.id}"),
        "hash expires": redis.ttl(job.key) > 0,
    }
    redis.set("seen", json.dumps(result, sort_keys=True))


def by_rq(queue: Queue) -> None:
    worker = _RQ([queue], connection=queue.connection, serializer=JSONSerializer, default_result_ttl=RESULT_TTL)
    worker.work(burst=True, logging_level="CRITICAL", with_scheduler=True)


@allow
def raising(job, connection, *details):
    """A callback that fails."""
    raise ValueError("the callback failed")


@allow
def retry_result_now():
    """Asks for another run, each time."""
    return Retry(max=2)


def by_engine(queue: Queue) -> None:
    run_worker([queue.name], burst=True)


ENTRY = "rqjobs.worker.entry.perform"


def plain(queue: Queue, do: str = "return", *, result: Any = None, times: int = 99, **options: Any):
    """One of our jobs, enqueued through plain RQ with RQ's own options."""
    payload = {"do": do, "args": {"result": result, "times": times}}
    return queue.enqueue(ENTRY, args=("tasks", payload), description="task", **options)


def dependents(queue: Queue) -> None:
    first = plain(queue, job_id="first")
    plain(queue, job_id="second", depends_on=first)
    plain(queue, job_id="third", depends_on=Dependency([first], allow_failure=True))


def in_a_group(queue: Queue) -> None:
    payload = {"do": "return"}
    datas = [Queue.prepare_data(ENTRY, args=("tasks", payload), job_id=f"a{n}", description="task") for n in range(3)]
    Group.create(queue.connection, name="together").enqueue_many(queue, datas)


def limited(queue: Queue, do: str = "return", **options: Any) -> None:
    """Three jobs of which RQ lets one into the queue at a time."""
    for n in range(3):
        plain(queue, do, job_id=f"a{n}", rate_limit=RateLimit("narrow", 1), **options)


def due(queue: Queue, **options: Any) -> None:
    for n in range(3):
        when = datetime.now(UTC) - timedelta(seconds=9 - n)
        queue.enqueue_at(when, ENTRY, args=("tasks", {"mark": str(n)}), job_id=f"a{n}", description="task", **options)


def canceled(queue: Queue) -> None:
    plain(queue, job_id="a")
    plain(queue, job_id="b").cancel()
    plain(queue, job_id="c").delete()
    queue.connection.rpush("rq:queue:tasks", "c")  # an id whose job is gone


def dead_of_a_worker(queue: Queue, **options: Any) -> None:
    """A job whose worker died long ago: its lease has run out."""
    job = plain(queue, job_id="a", **options)
    queue.connection.delete("rq:queue:tasks")
    queue.connection.hset(job.key, mapping={"status": "started", "worker_name": "gone"})
    queue.connection.zadd("rq:wip:tasks", {"a:x": 1})


def failed_dependents(queue: Queue) -> None:
    first = plain(queue, "dead", job_id="first")
    plain(queue, job_id="second", depends_on=first)
    plain(queue, job_id="third", depends_on=Dependency([first], allow_failure=True))


CASES: dict[str, Callable[[Queue], object]] = {
    "success": lambda queue: plain(queue, job_id="a"),
    "results": lambda queue: [
        plain(queue, job_id=f"a{n}", result=result)
        for n, result in enumerate(["text", 7, 1.5, [1], {"a": None}, False])
    ],
    "result-ttl": lambda queue: plain(queue, job_id="a", result_ttl=77),
    "result-ttl-for-ever": lambda queue: plain(queue, job_id="a", result_ttl=-1),
    "result-ttl-nothing": lambda queue: plain(queue, job_id="a", result_ttl=0),
    "ttl": lambda queue: plain(queue, job_id="a", ttl=500),
    "failure": lambda queue: plain(queue, "fail", job_id="a"),
    "failure-ttl": lambda queue: plain(queue, "fail", job_id="a", failure_ttl=99),
    "failure-ttl-for-ever": lambda queue: plain(queue, "fail", job_id="a", failure_ttl=-1),
    "permanent": lambda queue: plain(queue, "dead", job_id="a", retry=Retry(3, 10)),
    "retry-waiting": lambda queue: plain(queue, "fail", job_id="a", retry=Retry(3, [10, 20, 30])),
    "retry-with-ttl": lambda queue: plain(queue, "fail", job_id="a", retry=Retry(3, [10, 20, 30]), ttl=300),
    "retry-at-once": lambda queue: plain(queue, "fail", job_id="a", retry=Retry(2)),
    "retry-then-success": lambda queue: plain(queue, "fail", times=1, job_id="a", retry=Retry(2, [0, 0])),
    "later": lambda queue: queue.enqueue(
        ENTRY,
        args=("tasks", {"do": "later", "args": {"after": 50}}),
        job_id="a",
        description="task",
        retry=Retry(2, 10),
    ),
    "dependents": dependents,
    "failed-dependents": failed_dependents,
    "callback": lambda queue: plain(queue, job_id="a", on_success=Callback(called)),
    "failure-callback": lambda queue: plain(queue, "fail", job_id="a", on_failure=Callback(called)),
    "repeat": lambda queue: plain(queue, job_id="a", repeat=Repeat(times=2, interval=60)),
    "repeat-at-once": lambda queue: plain(queue, job_id="a", repeat=Repeat(times=2)),
    "repeat-of-a-failure": lambda queue: plain(queue, "fail", job_id="a", repeat=Repeat(times=2, interval=60)),
    "callbacks-and-retry": lambda queue: plain(
        queue, "fail", times=1, job_id="a", retry=Retry(2), on_success=Callback(called), on_failure=Callback(called)
    ),
    "raising-callback": lambda queue: plain(queue, job_id="a", on_success=Callback(raising), retry=Retry(1, 50)),
    "retry-at-front": lambda queue: plain(queue, "fail", job_id="a", retry=Retry(2, 30, enqueue_at_front=True)),
    "retry-as-a-result": lambda queue: queue.enqueue(retry_result, 2, job_id="a", description="task"),
    "retry-as-a-result-too-often": lambda queue: queue.enqueue(retry_result_now, job_id="a", description="task"),
    "group": in_a_group,
    "rate-limit": limited,
    "rate-limit-failure": lambda queue: limited(queue, "fail"),
    "rate-limit-retry": lambda queue: limited(queue, "fail", retry=Retry(1, 40)),
    "rate-limit-dependents": lambda queue: plain(
        queue, job_id="second", depends_on=plain(queue, job_id="a"), rate_limit=RateLimit("narrow", 1)
    ),
    "due": due,
    "due-at-front": lambda queue: due(queue, at_front=True),
    "due-with-a-ttl": lambda queue: due(queue, ttl=700),
    "due-with-a-rate-limit": lambda queue: due(queue, rate_limit=RateLimit("narrow", 1)),
    "webhooks": lambda queue: plain(
        queue, job_id="a", webhooks=[Webhook("http://127.0.0.1:9/none", "finished", timeout=1)]
    ),
    "canceled": canceled,
    "at-front": lambda queue: [plain(queue, job_id="a"), plain(queue, job_id="b", at_front=True)],
    "while-it-runs": lambda queue: queue.enqueue(look, job_id="looker", description="task"),
    "while-it-runs-special": lambda queue: queue.enqueue(
        look, job_id="looker", description="task", repeat=Repeat(1, 60)
    ),
    "meta": lambda queue: plain(queue, job_id="a", meta={"who": "me"}),
    "our-own": lambda queue: enqueue(Task(mark="x"), job_id="a"),
    "our-own-failure": lambda queue: enqueue(Task(do="fail"), job_id="a"),
    "hostile": lambda queue: queue.enqueue("os.system", "true", job_id="a", retry=Retry(2)),
}


def snapshot(redis) -> dict[str, Any]:
    """Every key that RQ's layout has: type, value and time to live, without what differs from run to run."""
    found: dict[str, Any] = {}
    for raw in sorted(redis.keys("*")):
        key = raw.decode()
        if re.match(_OWN, key):
            continue
        kind = redis.type(raw).decode()
        found[key] = (kind, _value(redis, raw, kind), _coarse(redis.ttl(raw)))
    return found


def _value(redis, key: bytes, kind: str) -> Any:
    if kind == "hash":
        fields = {field.decode(): value for field, value in redis.hgetall(key).items()}
        return {
            field: "(set)" if field in (*_TIMES, "worker_name") else _plain(value)
            for field, value in fields.items()
            if value != b"" and field not in _PRESENT_OR_NOT  # RQ writes absent fields as empty ones
        }
    if kind == "zset":
        return sorted((member, _age(score)) for member, score in redis.zrange(key, 0, -1, withscores=True))
    if kind == "stream":
        return [_entry(fields) for _id, fields in redis.xrange(key)]
    if kind == "list":
        return redis.lrange(key, 0, -1)
    return redis.smembers(key) if kind == "set" else redis.get(key)


def _plain(value: bytes) -> bytes:
    """RQ deflates the data when it saves a job again."""
    return zlib.decompress(value) if value[:1] == b"\x78" else value


def _entry(fields: dict[bytes, bytes]) -> dict[str, Any]:
    entry = {field.decode(): value for field, value in fields.items()}
    return {
        field: "(set)" if field in ("exc_string", "worker_name") else value
        for field, value in entry.items()
        if field not in _VARYING or field == "worker_name"
    }


def _age(score: float) -> Any:
    return score if score < 1e9 or score == float("inf") else round((score - time.time()) / 60)


def _coarse(ttl: int) -> int:
    return ttl if ttl < 0 else round(ttl / 60)


@pytest.mark.parametrize("case", CASES)
def test_the_same_in_redis(redis, monkeypatch, case):
    monkeypatch.setenv("RQJOBS_IMPORT", "tests.support.tasks")
    left = []
    for run in (by_rq, by_engine):
        redis.flushall()
        queue = Queue("tasks", connection=redis, serializer=JSONSerializer, job_class=RegisteredJob)
        CASES[case](queue)
        run(queue)
        left.append(snapshot(redis))
    assert left[1] == left[0]


def test_jobs_enqueued_during_a_response_are_not_missed(redis, monkeypatch):
    """RQ's methods enqueue a dependent between "nothing waits" and its being heard: a burst still runs it."""
    monkeypatch.setenv("RQJOBS_IMPORT", "tests.support.tasks")
    hand_out = WorkerLoop._hand_out

    def late(self, *answer):
        time.sleep(0.2)
        hand_out(self, *answer)

    monkeypatch.setattr(WorkerLoop, "_hand_out", late)
    queue = Queue("tasks", connection=redis, serializer=JSONSerializer, job_class=RegisteredJob)
    failed_dependents(queue)
    by_engine(queue)
    assert queue.fetch_job("third").get_status() == JobStatus.FINISHED
