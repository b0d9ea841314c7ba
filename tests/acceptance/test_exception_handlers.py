"""``rqjobs worker --exception-handler``: RQ's exception handlers, for RQ's own jobs and for ours."""

from __future__ import annotations

import pytest
from rq import Queue
from rq.serializers import JSONSerializer

from rqjobs import enqueue
from tests.support import plain
from tests.support.tasks import BatchTask, CoroutineTask, ProcessTask, Task
from tests.support.workers import eventually

IMPORT = {"RQJOBS_IMPORT": "tests.support.tasks tests.support.plain"}
HERE = "tests.support.plain"


def handlers(*names):
    return [word for name in names for word in ("--exception-handler", f"{HERE}.{name}")]


def handled(redis):
    return [line.decode() for line in redis.lrange("handled", 0, -1)]


@pytest.mark.parametrize("engine", ["threads", "rq"])
def test_the_chain_of_handlers_for_a_plain_job(workers, redis, engine):
    job = Queue("tasks", connection=redis, serializer=JSONSerializer).enqueue(plain.fail, "text", result_ttl=5)
    chain = handlers("handler", "broken_handler") if engine == "rq" else handlers("handler", "last_handler", "handler")
    done = workers.run("worker", "tasks", "--burst", "--engine", engine, *chain, **IMPORT)
    assert done.returncode == 0, done.stderr
    assert handled(redis) == [f"{job.id} ValueError False text"] + [f"{job.id} last"] * (engine == "threads")
    assert redis.hget(job.key, "status") == b"failed"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Task, "ValueError False attempt {n} failed"),
        (CoroutineTask, "ValueError False attempt {n} failed"),
        (BatchTask, "ValueError False attempt {n} failed"),
        (ProcessTask, "RaisedInProcess False ValueError: attempt {n} failed"),
    ],
)
def test_exception_handlers_get_every_failed_run_of_our_jobs(workers, redis, model, said):
    job = enqueue(model(do="fail", args={"times": 2}), attempts=3, backoff="fixed:0s")
    done = workers.run("worker", model.queue, "--burst", *handlers("broken_handler"), **IMPORT)
    assert done.returncode == 0, done.stderr
    assert redis.hget(job.key, "status") == b"finished"  # a broken handler costs nothing
    assert "exception handler failed" in done.stderr + done.stdout
    again = enqueue(model(do="fail", args={"times": 2}), attempts=3, backoff="fixed:0s")
    done = workers.run("worker", model.queue, "--burst", *handlers("handler", "last_handler", "handler"), **IMPORT)
    lines = [[f"{again.id} {said.format(n=n)}", f"{again.id} last"] for n in (1, 2)]
    assert handled(redis) == lines[0] + lines[1]


def test_our_time_limit_raises_rqs_exception_too(workers, redis):
    job = enqueue(Task(do="sleep", args={"seconds": 60}), timeout="1s", attempts=1)
    workers.start("tasks", *handlers("handler"), **IMPORT)
    eventually(lambda: redis.hget(job.key, "status") == b"failed")
    eventually(lambda: handled(redis))
    assert handled(redis) == [f"{job.id} TimeLimitExceeded True the job ran past its time limit of 1 s"]


def test_a_function_that_is_not_registered_is_a_plain_error(workers):
    done = workers.run("worker", "--burst", "--exception-handler", "os.system", **IMPORT)
    assert done.returncode == 2
    assert "os.system: no such function is registered" in done.stderr
    assert "Traceback" not in done.stderr
