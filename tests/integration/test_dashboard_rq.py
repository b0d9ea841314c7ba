"""rq-dashboard under /rq: each test is a fault of its version 0.9.0, which is not there."""

from __future__ import annotations

import pickle

import pytest
import redis as redis_py
from flask.testing import FlaskClient
from rq import Queue
from rq.rate_limit import RateLimit
from rq.serializers import JSONSerializer

from rqjobs import EmailJob, enqueue, enqueue_many
from rqjobs.broker.rq_schema import job_key, key
from tests.support.dashboard import (
    dead_jobs,
    webhook,
)


def rq_post(client: FlaskClient, token: str, path: str) -> int:
    return client.post(f"/rq/{path}", headers={"X-CSRF-Token": token}).status_code


def test_rq_requeue_is_refused_as_a_get(client: FlaskClient, token: str, redis: redis_py.Redis) -> None:
    dead_jobs(redis, 2)
    assert client.get("/rq/requeue/webhooks").status_code == 405
    assert redis.zcard(key("failed", "webhooks")) == 2
    assert rq_post(client, token, "requeue/webhooks") == 200
    assert redis.llen(key("queue", "webhooks")) == 2


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("import builtins; builtins.exploded = True",)


def test_rq_never_unpickles(client: FlaskClient, redis: redis_py.Redis) -> None:
    import builtins

    bomb = pickle.dumps(Bomb())
    job = enqueue(webhook())
    fields = {"data": bomb, "meta": bomb, "result": bomb, "status": "started"}
    redis.hset(job_key(job.id), mapping=fields)
    redis.zadd(key("failed", "webhooks"), {job.id: 1})
    worker = key("worker", "w1")
    redis.sadd(key("workers"), worker)
    redis.hset(worker, mapping={"state": "busy", "current_job": job.id, "queues": "webhooks"})
    for path in (
        "/rq/0/data/workers.json", f"/rq/0/data/job/{job.id}.json", "/rq/0/data/jobs/webhooks/failed/8/asc/1.json",
        f"/rq/0/view/job/{job.id}", f"/jobs/{job.id}", "/dead/", "/", "/queues/webhooks",
    ):  # fmt: skip
        assert client.get(path).status_code == 200, path
    assert not hasattr(builtins, "exploded")


def test_rq_shows_workers_that_run_json_jobs(client: FlaskClient, redis: redis_py.Redis) -> None:
    job = enqueue(webhook())
    worker = key("worker", "w1")
    redis.sadd(key("workers"), worker)
    redis.hset(worker, mapping={"state": "busy", "current_job": job.id, "queues": "webhooks"})
    (found,) = client.get("/rq/0/data/workers.json").json["workers"]
    assert found["current_job"]["job_id"] == job.id


def test_rq_shows_jobs_with_dependencies(client: FlaskClient, redis: redis_py.Redis) -> None:
    queue = Queue("webhooks", connection=redis, serializer=JSONSerializer)
    first = queue.enqueue("x.y")
    second = queue.enqueue("x.z", depends_on=first)
    shown = client.get(f"/rq/0/data/job/{second.id}.json").json
    assert shown["depends_on"] == [first.id]
    assert shown["depends_on_status"] == ["active"]


def test_rq_pages_return_404_for_unknown_jobs_instances_and_registries(client: FlaskClient, token: str) -> None:
    for path in (
        "0/data/job/none.json", "0/view/job/none", "1/view/queues", "7/data/queues.json",
        "0/data/jobs/webhooks/nonsense/8/asc/1.json", "0/view/jobs/webhooks/nonsense/8/asc/1",
        "0/data/jobs/webhooks/failed/x/asc/1.json",
    ):  # fmt: skip
        assert client.get(f"/rq/{path}").status_code == 404, path
    assert rq_post(client, token, "job/none/delete") == 404
    assert rq_post(client, token, "job/none/requeue") == 409


def test_rq_shows_rate_limited_jobs(client: FlaskClient, redis: redis_py.Redis) -> None:
    queue = Queue("webhooks", connection=redis, serializer=JSONSerializer)
    limit = RateLimit("k", 1)
    jobs = [queue.enqueue("x.y", rate_limit=limit) for _ in range(3)]
    found = client.get("/rq/0/data/jobs/webhooks/rate_limited/8/asc/1.json").json
    assert {job["id"] for job in found["jobs"]} == {job.id for job in jobs[1:]}


@pytest.mark.parametrize("order", ["asc", "dsc"])
@pytest.mark.parametrize("registry", ["queued", "failed"])
def test_rq_pages_do_not_overlap(client: FlaskClient, redis: redis_py.Redis, order: str, registry: str) -> None:
    jobs = dead_jobs(redis, 19) if registry == "failed" else enqueue_many([webhook(n) for n in range(19)])
    pages = [
        [job["id"] for job in client.get(f"/rq/0/data/jobs/webhooks/{registry}/8/{order}/{page}.json").json["jobs"]]
        for page in (1, 2, 3, 4)
    ]
    assert [len(page) for page in pages] == [8, 8, 3, 0]
    seen = [job_id for page in pages for job_id in page]
    assert sorted(seen) == sorted(job.id for job in jobs)
    if registry == "queued":
        assert seen == [job.id for job in (jobs if order == "asc" else jobs[::-1])]


def test_rq_requeued_jobs_have_all_their_attempts(client: FlaskClient, token: str, redis: redis_py.Redis) -> None:
    (job,) = dead_jobs(redis, 1)
    assert rq_post(client, token, f"job/{job.id}/requeue") == 200
    assert redis.hget(job_key(job.id), "retries_left") == b"2"


def test_rq_empties_and_compacts(client: FlaskClient, token: str, redis: redis_py.Redis) -> None:
    jobs = enqueue_many([webhook(n) for n in range(9)])
    redis.delete(job_key(jobs[4].id))
    assert rq_post(client, token, "queue/webhooks/compact") == 200
    assert redis.llen(key("queue", "webhooks")) == 8
    assert rq_post(client, token, "queue/webhooks/queued/empty") == 200
    assert redis.llen(key("queue", "webhooks")) == 0
    assert not redis.exists(job_key(jobs[0].id))
    dead_jobs(redis, 3)
    assert rq_post(client, token, "queue/webhooks/failed/empty") == 200
    assert redis.zcard(key("failed", "webhooks")) == 0
    assert rq_post(client, token, "queue/webhooks/started/empty") == 409


def test_rq_deletes_a_job(client: FlaskClient, token: str, redis: redis_py.Redis) -> None:
    job = enqueue(EmailJob(to="a@example.com", subject="s", template="welcome", data={"name": "A"}))
    assert rq_post(client, token, f"job/{job.id}/delete") == 200
    assert redis.llen(key("queue", "email")) == 0
    assert not redis.exists(job_key(job.id))
