"""Real ``rqjobs worker`` processes: waits, shutdown, an outage of Redis, fairness, idleness, leases."""

from __future__ import annotations

import itertools
import os
import signal
import time
from datetime import timedelta

import psutil
import pytest
from rq import Queue, Worker
from rq.command import send_stop_job_command
from rq.serializers import JSONSerializer

from rqjobs import enqueue, enqueue_many, wait_for_result
from rqjobs.embedded import ensure_server, stop_server
from rqjobs.history import read_history
from rqjobs.layout import fetch_job
from tests.support.processors import plain
from tests.support.tasks import CoroutineTask, ProcessTask, Task, notes
from tests.support.workers import eventually

ALL = ("tasks", "coroutines", "batches", "processes", "held")


@pytest.fixture(autouse=True)
def log(tmp_path, monkeypatch):
    monkeypatch.setenv("TASKS_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("RQJOBS_LEASE", "3")
    return tmp_path / "log"


def begin(workers, *args, **env):
    process = workers.start(*args, RQJOBS_IMPORT="tests.support.tasks tests.support.processors", **env)
    eventually(lambda: "worker started" in workers.logs())
    return process


def times(log, what="begins"):
    return {words[0]: float(words[3]) for words in notes(log) if words[2] == what}


def test_waits_are_exact(workers, log):
    begin(workers, "tasks")
    waits = (0.5, 1.0, 2.0, 4.0)
    enqueued = {}
    for wait in waits:
        enqueued[wait] = time.time()
        enqueue(Task(mark=str(wait)), delay=timedelta(seconds=wait))
    job = enqueue(Task(do="fail", mark="r", args={"times": 2}), backoff="fixed:0.5s")
    wait_for_result(job, "10s")
    eventually(lambda: len(times(log)) == len(waits) + 1)
    for wait in waits:  # 100 ms on an idle machine; this one runs other tests
        assert wait <= times(log)[str(wait)] - enqueued[wait] < wait + 0.4
    starts = [float(words[3]) for words in notes(log) if words[:1] == ["r"] and words[2] == "begins"]
    assert all(0.5 <= after - before < 0.9 for before, after in itertools.pairwise(starts))


def test_ten_thousand_jobs_due_in_the_same_second(workers, redis, log):
    begin(workers, "coroutines")
    due = time.time() + 4
    enqueue_many([CoroutineTask(mark=str(n)) for n in range(10_000)], delay=timedelta(seconds=4))
    assert redis.zcard("rq:scheduled:coroutines") == 10_000
    eventually(lambda: redis.hget("rqjobs:totals:coroutines", "completed") == b"10000", 30)
    assert max(times(log).values()) - due < 6  # two seconds on an idle machine
    assert len(notes(log)) == 20_000


def test_whoever_enqueues_wakes_the_worker(workers, redis, log):
    begin(workers, "tasks")
    took = []
    for n in range(20):
        time.sleep(0.03)
        now = time.time()
        wait_for_result(enqueue(Task(mark=str(n))))
        took.append(times(log)[str(n)] - now)
    assert sorted(took)[10] < 0.05
    job = Queue("tasks", connection=redis, serializer=JSONSerializer).enqueue(plain, 1)
    eventually(lambda: job.get_status() == "finished", 0.9)  # sooner than any polling


def test_sigterm_lets_running_jobs_finish(workers, redis, log):
    process = begin(workers, "tasks", "--grace", "15")
    enqueue_many([Task(do="sleep", mark=str(n), args={"seconds": 2}) for n in range(80)])
    eventually(lambda: len(notes(log)) >= 50)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert redis.hget("rqjobs:totals:tasks", "completed") == b"50"
    assert redis.llen("rq:queue:tasks") == 30
    for job_id in redis.lrange("rq:queue:tasks", 0, -1):
        assert redis.hget(f"rq:job:{job_id.decode()}", "retries_left") == b"2"


def test_what_outlasts_the_grace_period_is_handed_back(workers, redis, log):
    process = begin(workers, "tasks", "coroutines", "processes", "--grace", "1")
    jobs = [enqueue(model(do="sleep", args={"seconds": 60})) for model in (Task, CoroutineTask, ProcessTask)]
    eventually(lambda: len(notes(log)) == 3)
    children = psutil.Process(process.pid).children()
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0
    assert time.monotonic() - started < 8
    for job in jobs:
        job.refresh()
        assert (job.get_status(), job.retries_left) == ("queued", 2)
        assert redis.lrange(f"rq:queue:{job.origin}", 0, -1) == [job.id.encode()]
        assert redis.zcard(f"rq:wip:{job.origin}") == 0
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


def test_a_dead_workers_jobs_are_back_and_the_attempt_counts(workers, redis, log):
    first = begin(workers, "tasks")
    job = enqueue(Task(do="sleep", mark="a", args={"seconds": 15}), timeout="60s")
    eventually(lambda: len(notes(log)) == 1)
    workers.start("tasks", RQJOBS_IMPORT="tests.support.tasks")
    eventually(lambda: workers.logs().count("worker started") == 2)
    first.kill()
    died = time.time()
    eventually(lambda: len(notes(log)) == 2)
    assert [words[1] for words in notes(log)] == ["1", "2"]
    assert float(notes(log)[1][3]) - died < 3 + 5
    (lost,) = read_history(fetch_job(job.id, redis))
    assert lost.outcome == "retried"
    assert "died" in str(lost.error)


def test_a_job_that_kills_its_workers_is_dead_and_no_other_with_it(workers, redis, log):
    poison = [enqueue(model(do="exit"), attempts=10) for model in (Task, CoroutineTask)]
    others = [enqueue(model(do="sleep", args={"seconds": 0.1})) for model in (Task, CoroutineTask) for _ in range(90)]
    for _ in range(2):
        workers.start("tasks", "coroutines", RQJOBS_IMPORT="tests.support.tasks").wait(30)
    third = begin(workers, "tasks", "coroutines")
    statuses = [f"rq:job:{job.id}" for job in others + poison]
    ended = (b"finished", b"failed")
    eventually(lambda: all(redis.hget(job, "status") in ended for job in statuses), every=0.3)
    assert third.poll() is None
    assert [job.get_status() for job in others] == ["finished"] * len(others)
    for job in poison:
        assert redis.hget(f"rq:job:{job.id}", "status") == b"failed"
        assert "workers died while they ran this job" in str(read_history(fetch_job(job.id, redis))[-1].error)


def test_a_worker_that_lost_its_lease_does_not_finish_the_job(workers, redis, log):
    slow = begin(workers, "tasks")
    job = enqueue(Task(do="sleep", mark="a", args={"seconds": 2}))
    eventually(lambda: len(notes(log)) == 1)
    slow.send_signal(signal.SIGSTOP)  # as a machine that swaps, or a debugger
    try:
        begin(workers, "tasks")
        eventually(lambda: len(notes(log)) == 2, 15)  # the second worker has it now
    finally:
        slow.send_signal(signal.SIGCONT)
    assert wait_for_result(job, "20s")["attempt"] == 2
    eventually(lambda: "leases were lost" in workers.logs())
    assert redis.hget("rqjobs:totals:tasks", "completed") == b"1"


def test_redis_away_under_load(workers, tmp_path, log, monkeypatch, settings):
    folder = tmp_path / "redis"
    monkeypatch.setenv("REDIS_URL", f"unix://{ensure_server(folder)}")
    from rqjobs.connection import connect

    redis = connect(os.environ["REDIS_URL"])
    process = begin(workers, "tasks")
    enqueue_many([Task(do="sleep", mark=str(n), args={"seconds": 0.2}) for n in range(1000)], connection=redis)
    eventually(lambda: len(notes(log)) > 200)
    stop_server(folder)
    time.sleep(5)
    assert process.poll() is None
    ensure_server(folder)
    eventually(lambda: redis.hget("rqjobs:totals:tasks", "completed") == b"1000", 40)
    assert {words[0] for words in notes(log) if words[2] == "ends"} == {str(n) for n in range(1000)}
    assert "redis is back" in workers.logs()
    redis.close()
    workers.stop()
    stop_server(folder)


def test_a_backlog_does_not_starve_the_others(workers, redis, log):
    enqueue_many([Task(do="sleep", mark=f"b{n}", args={"seconds": 0.05}) for n in range(3000)])
    redis.lpush("rq:queue:tasks", *[f"gone{n}" for n in range(50_000)])  # what expired is passed over
    begin(workers, "tasks", "coroutines", "processes")
    eventually(lambda: len(notes(log)) > 50)
    now = time.time()
    jobs = [enqueue(CoroutineTask(mark="c")), enqueue(ProcessTask(mark="p"))]
    eventually(lambda: {"c", "p"} <= set(times(log)))
    assert times(log)["c"] - now < 1
    assert all(fetch_job(job.id, redis).started_at.timestamp() - now < 1 for job in jobs)  # a process takes its time


def test_an_idle_worker_sleeps(workers):
    process = begin(workers, *ALL)
    measured = psutil.Process(process.pid)
    time.sleep(1.5)
    before = sum(measured.cpu_times()[:2])
    time.sleep(3)
    assert sum(measured.cpu_times()[:2]) - before < 0.03 * 3  # one hundredth on an idle machine


def test_rqs_own_tools_see_and_command_the_worker(workers, redis, log):
    begin(workers, "tasks", "processes")
    (worker,) = Worker.all(redis)
    assert "tasks" in worker.queue_names()
    jobs = [enqueue(model(do="sleep", args={"seconds": 30}), attempts=1) for model in (ProcessTask,)]
    jobs.append(enqueue(Task(do="spin", args={"seconds": 30}), attempts=1))
    eventually(lambda: len(notes(log)) == 2)
    eventually(lambda: worker.get_current_executions(refresh=True))
    for job in jobs:
        send_stop_job_command(redis, job.id, serializer=JSONSerializer)
    for job in jobs:
        eventually(lambda job=job: job.get_status() == "stopped", 10)


def test_a_busy_worker_writes_the_record_of_an_execution_where_a_job_runs_for_long(workers, redis, log):
    enqueue_many([Task(mark=str(n)) for n in range(2_000)])
    long = enqueue(Task(do="sleep", mark="long", args={"seconds": 2}))
    enqueue_many([Task(mark=str(n)) for n in range(2_000, 4_000)])
    begin(workers, "tasks")
    eventually(lambda: "long" in times(log))
    executions = fetch_job(long.id, redis).get_executions
    eventually(lambda: len(executions()) == 1)
    assert executions()[0].job_id == long.id
    wait_for_result(long, "20s")
    eventually(lambda: redis.hget("rqjobs:totals:tasks", "completed") == b"4001", 30)
    assert redis.keys("rq:execution*") == []
