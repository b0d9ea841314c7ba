"""The time limits of plain RQ jobs under our engine: RQ's own exception, RQ's callbacks, whatever the thread does."""

from __future__ import annotations

import pytest
from rq import Callback, Queue, Retry
from rq.serializers import JSONSerializer

from rqjobs.broker.rq_schema import RegisteredJob, fetch_job
from tests.support import plain
from tests.support.workers import eventually

SAID = "Task exceeded maximum timeout value (1 seconds)"
IMPORT = {"RQJOBS_IMPORT": "tests.support.tasks tests.support.plain"}


@pytest.fixture
def queue(redis):
    return Queue("tasks", connection=redis, serializer=JSONSerializer, job_class=RegisteredJob)


@pytest.mark.parametrize("function", [plain.spin, plain.swallow, plain.sleep])
def test_a_job_past_its_limit_fails_as_under_rq(workers, redis, queue, function):
    args = (100,) if function is plain.sleep else ()
    job = queue.enqueue(function, args=args, job_timeout=1, on_failure=Callback(plain.note_failure))
    workers.start("tasks", **IMPORT)
    eventually(lambda: redis.hget(job.key, "status") == b"failed")
    assert f"rq.timeouts.JobTimeoutException: {SAID}" in fetch_job(job.id, redis).latest_result().exc_string
    assert redis.lrange("failures", 0, -1) == [f"{job.id} JobTimeoutException True {SAID}".encode()]
    assert redis.get("cleaned up") == (SAID.encode() if function is plain.spin else None)
    assert redis.hgetall("rqjobs:totals:tasks") == {b"failed": b"1"}


def test_a_job_inside_a_call_of_c_is_tried_again_while_its_thread_is_stuck(workers, redis, queue):
    job = queue.enqueue(plain.sleep, args=(100,), job_timeout=1, retry=Retry(1))
    workers.start("tasks", "--threads", "1", **IMPORT)
    eventually(lambda: redis.hget(job.key, "status") == b"failed")
    assert redis.hgetall("rqjobs:totals:tasks") == {b"failed": b"1", b"retried": b"1"}
    after = queue.enqueue(plain.sleep, args=(0,))  # two threads of a worker of one slot are stuck: it is closed
    workers.start("tasks", **IMPORT)
    eventually(lambda: redis.hget(after.key, "status") == b"finished")


def test_a_limit_around_a_callback_is_a_failure_of_the_job(workers, redis, queue):
    job = queue.enqueue(plain.sleep, args=(0,), on_success=Callback(plain.slow_callback, timeout=1))
    workers.start("tasks", **IMPORT)
    eventually(lambda: redis.hget(job.key, "status") == b"failed")
    assert SAID in fetch_job(job.id, redis).latest_result().exc_string
