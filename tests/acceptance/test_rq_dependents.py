"""Dependents under our engine: none is left behind, by a race of two workers or a kill between two steps."""

from __future__ import annotations

import pytest
from rq import Queue, Retry
from rq.job import Dependency
from rq.serializers import JSONSerializer

from rqjobs.broker.rq_schema import RegisteredJob
from tests.support.workers import eventually

ENTRY = "rqjobs.worker.entry.perform"
TASKS = {"RQJOBS_IMPORT": "tests.support.tasks"}
DYING = {"RQJOBS_IMPORT": "tests.support.tasks tests.support.dies"}


@pytest.fixture
def queue(redis):
    return Queue("tasks", connection=redis, serializer=JSONSerializer, job_class=RegisteredJob)


def put(queue, job_id, do="return", **options):
    return queue.enqueue(ENTRY, args=("tasks", {"do": do}), job_id=job_id, **options)


def status(redis, job_id):
    return redis.hget(f"rq:job:{job_id}", "status")


def test_dependents_of_two_parents_each_run_soon(workers, redis, queue):
    redis.set("rq:clean_registries:tasks", 1, ex=899)  # the maintenance at a worker's start would end their wait
    for n in range(150):
        parents = [put(queue, f"a{n}"), put(queue, f"b{n}")]
        put(queue, f"c{n}", depends_on=parents)
    for _ in range(2):
        workers.start("tasks", **TASKS)
    eventually(lambda: redis.hget("rqjobs:totals:tasks", "completed") == b"450")
    assert not redis.zcard("rq:ready:tasks")


def test_ready_dependents_of_a_killed_worker_run_soon_despite_its_lock(workers, redis, queue):
    first = put(queue, "first")
    put(queue, "second", depends_on=first)
    died = workers.run("worker", "tasks", **DYING, DIES_AT="before-enqueueing")
    assert died.returncode == 9
    assert status(redis, "second") == b"ready_to_enqueue"
    redis.set("rq:clean_registries:tasks", 1, ex=899)
    workers.start("tasks", **TASKS)
    eventually(lambda: status(redis, "second") == b"finished", timeout=30)


def test_dependents_that_allow_a_failure_outlive_a_worker_killed_after_it(workers, redis, queue):
    first = put(queue, "first", "dead")
    put(queue, "other", depends_on=first)
    put(queue, "allowing", depends_on=Dependency([first], allow_failure=True), retry=Retry(2))
    died = workers.run("worker", "tasks", **DYING, DIES_AT="before-dependents", RQJOBS_LEASE="2s")
    assert died.returncode == 9
    workers.start("tasks", **TASKS)  # the dead worker may have begun it
    eventually(lambda: status(redis, "allowing") == b"finished")
    assert status(redis, "other") == b"deferred"


@pytest.mark.parametrize(("do", "what"), [("return", b"completed"), ("dead", b"failed")])
def test_the_totals_count_jobs_of_a_worker_that_is_killed_after_their_end(workers, redis, queue, do, what):
    first = put(queue, "first", do)
    put(queue, "second", depends_on=first)
    died = workers.run("worker", "tasks", **DYING, DIES_AT="after-commit")
    assert died.returncode == 9
    assert redis.hgetall("rqjobs:totals:tasks")[what] == b"1"


def test_dependents_on_their_way_into_the_queue_count_as_waiting(workers, redis, queue):
    first = put(queue, "first")
    put(queue, "second", depends_on=first)
    workers.run("worker", "tasks", **DYING, DIES_AT="before-enqueueing")
    assert redis.zrange("rq:ready:tasks", 0, -1) == [b"second"]
    (health,) = [found for found in workers.json("health", **TASKS)["queues"] if found["name"] == "tasks"]
    assert health["waiting"] == 1
    assert "(status ready_to_enqueue)" not in workers.run("doctor", **TASKS).stdout
    redis.delete("rq:ready:tasks")
    assert "such as second (status ready_to_enqueue)" in workers.run("doctor", **TASKS).stdout
