"""A job that holds the interpreter, or crashes it: the process ends, the job is found, and no other job pays for it."""

from __future__ import annotations

import os
import re
import signal
import time

import psutil
import pytest

from rqjobs import enqueue_many
from rqjobs.broker.attempts import read_history
from rqjobs.broker.rq_schema import fetch_job
from rqjobs.monitoring.queue_health import queue_health
from tests.support import fleet
from tests.support.freezing import Deadly, DeadlyCoroutine
from tests.support.workers import eventually

ENV = {"RQJOBS_IMPORT": "tests.support.freezing", "RQJOBS_LEASE": "60"}


def crowd(model, do, honest=60):
    """One job of many that does ``do``; the others sleep for a moment, so that some of them run beside it."""
    args = {"seconds": 0.05}
    jobs = [model(do="sleep", mark=str(n), args=args) for n in range(honest)]
    jobs.insert(7, model(do=do, mark="deadly"))
    return enqueue_many(jobs, attempts=3, backoff="fixed:1s")[7].id


def ended(redis, model, honest=60):
    totals = redis.hgetall(f"rqjobs:totals:{model.queue}")
    return totals.get(b"completed") == b"%d" % honest and totals.get(b"failed") == b"1"


@pytest.mark.parametrize("model", [Deadly, pytest.param(DeadlyCoroutine, marks=pytest.mark.slow)])
def test_a_job_that_freezes_its_worker_is_found_and_no_other_job_has_an_attempt_counted(workers, redis, model):
    deadly = crowd(model, "freeze")
    workers.start("--processes", "2", model.queue, **ENV)
    eventually(lambda: ended(redis, model), timeout=240)
    log = workers.logs()
    assert len(re.findall("worker is frozen", log)) == 1
    errors = [record.error for record in read_history(fetch_job(deadly, redis))]
    assert "frozen while it ran this job" in str(errors[0])
    assert all("frozen" not in str(error) for error in errors[1:])
    assert "in deadly" in log  # the traceback
    assert redis.hget(f"rqjobs:totals:{model.queue}", "retried") == b"2"  # its own
    if model is Deadly:
        assert f'culprit="{deadly} (deadly, tests.support.freezing:deadly)"' in log


def test_a_frozen_worker_ends_at_sigterm_within_its_grace(workers, redis):
    (job,) = enqueue_many([Deadly(do="freeze")])
    process = workers.start("deadly", "--grace", "1", RQJOBS_IMPORT=ENV["RQJOBS_IMPORT"], RQJOBS_LEASE="300")
    eventually(lambda: redis.hget(f"rq:job:{job.id}", "status") == b"started")
    time.sleep(1)
    (watcher,) = psutil.Process(process.pid).children()
    for number in (watcher.pid, process.pid):  # as systemd does
        os.kill(number, signal.SIGTERM)
    assert process.wait(30) == -signal.SIGABRT
    eventually(lambda: redis.hget(f"rq:job:{job.id}", "status") == b"queued")


def test_a_worker_continues_after_it_was_stopped_by_a_signal(workers, redis):
    process = workers.start("deadly", **ENV)
    eventually(lambda: "worker started" in workers.logs())
    process.send_signal(signal.SIGSTOP)
    time.sleep(8)
    process.send_signal(signal.SIGCONT)
    enqueue_many([Deadly() for _ in range(3)])
    eventually(lambda: redis.hgetall("rqjobs:totals:deadly") == {b"completed": b"3"})
    assert "frozen" not in workers.logs()


@pytest.mark.parametrize("model", [Deadly, pytest.param(DeadlyCoroutine, marks=pytest.mark.slow)])
def test_a_job_that_crashes_its_worker_runs_alone_the_second_time(workers, redis, model):
    deadly = crowd(model, "crash")
    workers.start("--processes", "2", model.queue, **ENV)
    eventually(lambda: ended(redis, model), timeout=240)
    log = workers.logs()
    assert len(re.findall("worker died", log)) == 1
    history = read_history(fetch_job(deadly, redis))
    assert len(history) == 2
    assert "the job's process was killed by SIGSEGV" in str(history[-1].error)


def test_the_jobs_of_a_killed_worker_that_only_waited_are_not_charged(workers, redis):
    jobs = enqueue_many([Deadly(do="sleep", args={"seconds": 3600})] * 10 + [Deadly(do="return")] * 30, attempts=2)
    process = workers.start("deadly", **ENV)
    eventually(lambda: redis.zcard("rq:wip:deadly") == 10)
    time.sleep(2)  # claimed jobs begin within milliseconds; only those that have begun are charged
    watcher = psutil.Process(process.pid).children()
    assert watcher
    process.kill()
    eventually(lambda: not redis.zcard("rq:wip:deadly"))
    died = [redis.hget(f"rq:job:{job.id}", "worker_died") for job in jobs]
    assert died == [b"1"] * 10 + [None] * 30
    eventually(lambda: not any(psutil.pid_exists(one.pid) for one in watcher))


def test_a_thread_that_a_job_left_behind_does_not_keep_the_process(workers, redis):
    enqueue_many([Deadly(do="leave-thread")])
    process = workers.start("deadly", **ENV)
    eventually(lambda: redis.hgetall("rqjobs:totals:deadly") == {b"completed": b"1"})
    process.terminate()
    assert process.wait(30) == 0


def test_health_names_a_worker_that_has_jobs_and_is_silent(redis):
    fleet.worker(redis, "silent", rqjobs_seen=str(int(time.time()) - 20), queues="webhooks", pid="77")
    assert not [queue.name for queue in queue_health(redis) if not queue.healthy]
    redis.sadd("rq:worker:silent:executions", "a:b")
    unhealthy = {queue.name: queue.reasons for queue in queue_health(redis) if not queue.healthy}
    assert list(unhealthy) == ["webhooks"]
    assert "no sign of life for 2" in unhealthy["webhooks"][0]
    redis.hset("rq:worker:silent", "rqjobs_seen", str(int(time.time())))
    assert all(queue.healthy for queue in queue_health(redis))
