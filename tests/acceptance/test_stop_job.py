"""``send_stop_job_command``: whatever runs the job, it ends for good, and the next one runs."""

from __future__ import annotations

import time

import pytest
from rq import Callback, Queue
from rq.command import send_stop_job_command
from rq.executions import Execution
from rq.serializers import JSONSerializer

from rqjobs import enqueue, enqueue_many
from rqjobs.broker.attempts import read_history
from rqjobs.broker.rq_schema import RegisteredJob, fetch_job
from tests.support.tasks import BatchTask, CoroutineTask, ProcessTask, Task, leave_a_note, notes
from tests.support.workers import eventually

ALL = ("tasks", "coroutines", "batches", "processes")


@pytest.fixture(autouse=True)
def log(tmp_path, monkeypatch):
    monkeypatch.setenv("TASKS_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


def begin(workers, *queues, **env):
    process = workers.start(*queues, RQJOBS_IMPORT="tests.support.tasks", **env)
    eventually(lambda: "worker started" in workers.logs())
    return process


def stop(redis, job):
    eventually(lambda: redis.hget(f"rq:job:{job.id}", "worker_name"))
    send_stop_job_command(redis, job.id, serializer=JSONSerializer)


def is_stopped(redis, job):
    """As RQ files it: its own status, among the dead, with the attempts that it had."""
    eventually(lambda: redis.hget(f"rq:job:{job.id}", "status") == b"stopped")
    stopped = fetch_job(job.id, redis)
    assert redis.zscore(f"rq:failed:{job.origin}", job.id)
    assert stopped.retries_left == 2
    assert "stopped" in str(read_history(stopped)[-1].error)
    eventually(lambda: not redis.zcard(f"rq:wip:{job.origin}"))


@pytest.mark.parametrize(("model", "do"), [(Task, "spin"), (CoroutineTask, "sleep"), (ProcessTask, "sleep")])
def test_a_running_job_is_stopped_for_good(workers, redis, log, model, do):
    begin(workers, model.queue)
    job = enqueue(model(do=do, mark="a", args={"seconds": 60}))
    eventually(lambda: notes(log))
    stop(redis, job)
    is_stopped(redis, job)
    after = enqueue(model(mark="b"))
    eventually(lambda: fetch_job(after.id, redis).get_status() == "finished")
    assert [words[0] for words in notes(log) if words[2] == "begins"] == ["a", "b"]
    assert [words[0] for words in notes(log) if words[2] == "ends"] == ["b"]


def test_one_job_of_a_batch_is_stopped_and_the_others_are_done(workers, redis, log, tmp_path):
    jobs = [enqueue(BatchTask(do="wait", mark=str(n), args={"file": str(tmp_path / "go")})) for n in range(3)]
    begin(workers, "batches")
    eventually(lambda: len(notes(log)) == 1)  # the first of the batch waits
    stop(redis, jobs[2])
    eventually(lambda: redis.hget(f"rq:job:{jobs[2].id}", "status") == b"stopped")
    assert len(notes(log)) == 1  # while its batch goes on
    (tmp_path / "go").touch()
    eventually(lambda: redis.hget("rqjobs:totals:batches", "completed") == b"2")
    is_stopped(redis, jobs[2])


def test_a_job_that_waits_for_a_slot_in_the_worker_never_begins(workers, redis, log, tmp_path):
    begin(workers, "processes", "batches")
    for begun, mark in enumerate(("first", "second"), 1):  # two batches are under way at once
        enqueue(BatchTask(do="wait", mark=mark, args={"file": str(tmp_path / "go")}))
        eventually(lambda begun=begun: len(notes(log)) == begun)
    waiting = enqueue(BatchTask(mark="never"))
    stop(redis, waiting)
    eventually(lambda: redis.hget(f"rq:job:{waiting.id}", "status") == b"stopped")
    (tmp_path / "go").touch()
    is_stopped(redis, waiting)
    eventually(lambda: redis.hget("rqjobs:totals:batches", "completed") == b"2")
    time.sleep(0.3)
    assert "never" not in {words[0] for words in notes(log)}


def test_a_thread_that_does_not_react_is_abandoned(workers, redis, log):
    """time.sleep() is one call of C: no exception gets in. The job ends all the same, and another takes the slot."""
    begin(workers, "tasks", "--threads", "1")
    job = enqueue(Task(do="sleep", mark="a", args={"seconds": 200}), timeout="300s")
    eventually(lambda: notes(log))
    stop(redis, job)
    is_stopped(redis, job)
    after = enqueue(Task(mark="b"))
    eventually(lambda: fetch_job(after.id, redis).get_status() == "finished")


def test_a_job_inside_a_call_of_c_is_stopped_before_its_thread_is_abandoned(workers, redis, log):
    begin(workers, "tasks", TASKS_PATIENCE="3600")
    job = enqueue(Task(do="sleep", mark="a", args={"seconds": 200}), timeout="300s")
    eventually(lambda: notes(log))
    stop(redis, job)
    is_stopped(redis, job)
    assert "thread abandoned" not in workers.logs()


@pytest.mark.parametrize("seconds", [2, 200])
def test_rqs_stopped_callback_is_called_for_a_job_inside_a_call_of_c(workers, redis, log, seconds):
    """Once, and what the thread does when its call ends at last changes nothing."""
    queue = Queue("tasks", connection=redis, serializer=JSONSerializer, job_class=RegisteredJob)
    sleep = ("tasks", {"do": "sleep", "mark": "a", "args": {"seconds": seconds}})
    begin(workers, "tasks", "--threads", "1")
    job = queue.enqueue(
        "rqjobs.worker.entry.perform", args=sleep, on_stopped=Callback(leave_a_note), on_failure=Callback(leave_a_note)
    )
    eventually(lambda: notes(log))
    stop(redis, job)
    eventually(lambda: redis.hget(f"rq:job:{job.id}", "status") == b"stopped")
    after = enqueue(Task(mark="b"))
    eventually(lambda: fetch_job(after.id, redis).get_status() == "finished")
    if seconds == 2:
        time.sleep(2)
    assert redis.hget(f"rq:job:{job.id}", "status") == b"stopped"
    assert redis.get("noted") == b"1"
    assert redis.zcard("rq:wip:tasks") == 0
    assert redis.hgetall("rqjobs:totals:tasks") == {b"completed": b"1", b"failed": b"1"}


def test_rqs_stopped_callback_is_called(workers, redis, log):
    queue = Queue("tasks", connection=redis, serializer=JSONSerializer, job_class=RegisteredJob)
    spin = ("tasks", {"do": "spin", "mark": "a", "args": {"seconds": 60}})
    begin(workers, "tasks")
    job = queue.enqueue(
        "rqjobs.worker.entry.perform", args=spin, on_stopped=Callback(leave_a_note), on_failure=Callback(leave_a_note)
    )
    eventually(lambda: notes(log))
    (member,) = redis.zrange("rq:wip:tasks", 0, -1)
    assert Execution.from_composite_key(member.decode(), redis).job_id == job.id
    stop(redis, job)
    eventually(lambda: redis.hget(f"rq:job:{job.id}", "status") == b"stopped")
    assert redis.get("noted") == b"1"  # the callback of stopped jobs, and not that of failures as well


def test_a_coroutine_job_is_retried_after_its_own_task_was_cancelled(workers, redis, log):
    """Somebody else's CancelledError is a failure like any other, and no command to stop."""
    begin(workers, "coroutines")
    (job,) = enqueue_many([CoroutineTask(do="cancelled", mark="a")], attempts=2, backoff="fixed:0s")
    eventually(lambda: fetch_job(job.id, redis).get_status() == "failed")
    assert [words[1] for words in notes(log)] == ["1", "2"]
