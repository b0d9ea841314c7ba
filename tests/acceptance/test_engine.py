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
from rqjobs.broker.attempts import read_history
from rqjobs.broker.embedded import ensure_server, stop_server
from rqjobs.broker.rq_schema import fetch_job
from tests.support.processors import plain
from tests.support.tasks import BatchTask, CoroutineTask, ProcessTask, Task, notes
from tests.support.workers import eventually

ALL = ("tasks", "coroutines", "batches", "processes", "held")


@pytest.fixture(autouse=True)
def log(tmp_path, monkeypatch):
    monkeypatch.setenv("TASKS_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("RQJOBS_LEASE", "3")
    return tmp_path / "log"


def begin(workers, *args, imports=(), **env):
    modules = " ".join(("tests.support.tasks", "tests.support.processors", *imports))
    process = workers.start(*args, RQJOBS_IMPORT=modules, **env)
    eventually(lambda: "worker started" in workers.logs())
    return process


def times(log, what="begins"):
    return {words[0]: float(words[3]) for words in notes(log) if words[2] == what}


def test_waits_are_exact(workers, log):
    """Each kind of wait several times: the machine, which runs other tests, may stand still in some of them."""
    begin(workers, "tasks", imports=["tests.support.no_polling"])
    waits, late = (0.5, 1.0, 2.0, 4.0), {}
    due, jobs = {}, []
    for turn in range(6):
        for wait in waits:
            due[f"{wait} {turn}"] = time.time() + wait
            enqueue(Task(mark=f"{wait}-{turn}"), delay=timedelta(seconds=wait))
        jobs.append(enqueue(Task(do="fail", mark=f"r-{turn}", args={"times": 2}), backoff="fixed:0.5s"))
        time.sleep(0.5)
    for job in jobs:
        wait_for_result(job, "60s")
    eventually(lambda: len(times(log)) == len(due) + len(jobs))
    for wait in waits:
        late[wait] = [times(log)[f"{wait}-{turn}"] - due[f"{wait} {turn}"] for turn in range(6)]
    begun = [words for words in notes(log) if words[2] == "begins"]
    runs = [[float(words[3]) for words in begun if words[0] == f"r-{turn}"] for turn in range(6)]
    late["retry"] = [after - before - 0.5 for each in runs for before, after in itertools.pairwise(each)]
    assert all(0 <= min(each) < 0.4 for each in late.values()), late  # 100 ms on an idle machine: test_engine_long


def test_ten_thousand_jobs_due_in_the_same_second(workers, redis, log):
    begin(workers, "coroutines")
    jobs = enqueue_many([CoroutineTask(mark=str(n)) for n in range(10_000)], delay="1h")
    assert redis.zcard("rq:scheduled:coroutines") == 10_000
    due = time.time() + 1
    redis.zadd("rq:scheduled:coroutines", {job.id: due for job in jobs})
    eventually(lambda: redis.hget("rqjobs:totals:coroutines", "completed") == b"10000")
    assert min(times(log).values()) >= due  # and at most two seconds later on an idle machine: test_engine_long
    assert len(notes(log)) == 20_000


def test_every_way_to_enqueue_wakes_the_worker(workers, redis, log):
    begin(workers, "tasks", imports=["tests.support.no_polling"])
    took = []
    for n in range(20):
        time.sleep(0.03)
        now = time.time()
        wait_for_result(enqueue(Task(mark=str(n))))
        took.append(times(log)[str(n)] - now)
    assert sorted(took)[5] < 0.2  # a few milliseconds on an idle machine
    job = Queue("tasks", connection=redis, serializer=JSONSerializer).enqueue(plain, 1)
    eventually(lambda: job.get_status() == "finished")


def test_sigterm_lets_running_jobs_finish(workers, redis, log, tmp_path):
    process = begin(workers, "tasks", "--grace", "60")
    enqueue_many([Task(do="wait", mark=str(n), args={"file": str(tmp_path / "go")}) for n in range(80)])
    eventually(lambda: len(notes(log)) >= 50)
    process.send_signal(signal.SIGTERM)
    eventually(lambda: "worker stopping" in workers.logs())
    (tmp_path / "go").touch()
    assert process.wait(60) == 0
    assert redis.hget("rqjobs:totals:tasks", "completed") == b"50"
    assert redis.llen("rq:queue:tasks") == 30
    for job_id in redis.lrange("rq:queue:tasks", 0, -1):
        assert redis.hget(f"rq:job:{job_id.decode()}", "retries_left") == b"2"


def test_jobs_that_exceed_the_grace_period_are_released(workers, redis, log):
    process = begin(workers, "tasks", "coroutines", "processes", "--grace", "1")
    jobs = [enqueue(model(do="sleep", args={"seconds": 600})) for model in (Task, CoroutineTask, ProcessTask)]
    eventually(lambda: len(notes(log)) == 3)
    children = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    for job in jobs:
        job.refresh()
        assert (job.get_status(), job.retries_left) == ("queued", 2)
        assert redis.lrange(f"rq:queue:{job.origin}", 0, -1) == [job.id.encode()]
        assert redis.zcard(f"rq:wip:{job.origin}") == 0
    eventually(lambda: not any(map(is_alive, children)))


def is_alive(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # between the two questions
        return False


def test_a_dead_workers_jobs_are_back_and_the_attempt_counts(workers, redis, log, tmp_path):
    first = begin(workers, "tasks")
    job = enqueue(Task(do="wait", mark="a", args={"file": str(tmp_path / "go")}), timeout="300s")
    eventually(lambda: len(notes(log)) == 1)
    workers.start("tasks", RQJOBS_IMPORT="tests.support.tasks")
    eventually(lambda: workers.logs().count("worker started") == 2)
    first.kill()
    died = time.time()
    eventually(lambda: len(notes(log)) == 2)
    assert [words[1] for words in notes(log)] == ["1", "2"]
    assert float(notes(log)[1][3]) - died < 25  # its lease was over after 3; 30 are the default
    (tmp_path / "go").touch()
    wait_for_result(job, "60s")
    lost, done = read_history(fetch_job(job.id, redis))
    assert (lost.outcome, done.outcome) == ("retried", "done")
    assert "died" in str(lost.error)


def test_a_job_that_kills_its_workers_is_dead_and_no_other_with_it(workers, redis, log):
    poison = [enqueue(model(do="exit"), attempts=10) for model in (Task, CoroutineTask)]
    others = [enqueue(model(do="sleep", args={"seconds": 0.1})) for model in (Task, CoroutineTask) for _ in range(90)]
    statuses = [f"rq:job:{job.id}" for job in others + poison]
    ended = (b"finished", b"failed")

    def over():
        if all(process.poll() is not None for process in workers.processes):
            workers.start("tasks", "coroutines", RQJOBS_IMPORT="tests.support.tasks")
        return all(redis.hget(job, "status") in ended for job in statuses)

    eventually(over, every=0.3)
    # Each of the two kills a worker before it runs alone, or two if over 32 jobs ran beside it. The last one ends.
    assert 2 <= len(workers.processes) <= 5
    assert [job.get_status() for job in others] == ["finished"] * len(others)
    for job in poison:
        assert redis.hget(f"rq:job:{job.id}", "status") == b"failed"
        assert "workers died while they ran this job" in str(read_history(fetch_job(job.id, redis))[-1].error)


def test_a_worker_that_lost_its_lease_does_not_finish_the_job(workers, redis, log, tmp_path):
    slow = begin(workers, "tasks")
    job = enqueue(Task(do="wait", mark="a", args={"file": str(tmp_path / "go")}))
    eventually(lambda: len(notes(log)) == 1)
    slow.send_signal(signal.SIGSTOP)  # as a machine that swaps, or a debugger
    try:
        begin(workers, "tasks")
        eventually(lambda: len(notes(log)) == 2)  # the second worker has it now
    finally:
        slow.send_signal(signal.SIGCONT)
    (tmp_path / "go").touch()
    assert wait_for_result(job, "60s")["attempt"] == 2
    eventually(lambda: "leases were lost" in workers.logs())
    assert redis.hget("rqjobs:totals:tasks", "completed") == b"1"


def occupy_both_threads(log, go):
    """With a batch of one job each; what comes after them waits in the worker."""
    for mark in ("first", "second"):
        yield enqueue(BatchTask(do="wait", mark=mark, args={"file": str(go)}))
        eventually(lambda mark=mark: mark in [words[0] for words in notes(log)])


def test_a_worker_that_lost_its_leases_does_not_begin_its_waiting_jobs(workers, redis, log, tmp_path):
    """Else it would be busy for as long again with what another worker runs, and lose what it takes next."""
    slow = begin(workers, "batches")
    jobs = [*occupy_both_threads(log, tmp_path / "go")]
    jobs += enqueue_many(BatchTask(mark=str(n)) for n in range(50))
    eventually(lambda: redis.zcard("rq:wip:batches") == len(jobs))
    slow.send_signal(signal.SIGSTOP)
    try:
        begin(workers, "batches")
        eventually(lambda: len(workers.taken_back()) == len(jobs))
    finally:
        slow.send_signal(signal.SIGCONT)
    eventually(lambda: len(workers.lost_leases()) == len(jobs))
    (tmp_path / "go").touch()
    eventually(lambda: redis.hget("rqjobs:totals:batches", "completed") == str(len(jobs)).encode())
    assert [words[0] for words in notes(log) if int(words[4]) == slow.pid] == ["first", "second"]


def test_a_job_that_only_waited_in_a_worker_that_died_is_not_charged_again(workers, redis, log, tmp_path):
    """One death of a worker has counted against it already; the next worker dies before it has begun it."""
    first = begin(workers, "batches")
    jobs = [enqueue(BatchTask(mark="third"), delay="3s")]
    redis.hset(f"rq:job:{jobs[0].id}", "worker_died", 1)
    jobs += occupy_both_threads(log, tmp_path / "go")
    eventually(lambda: redis.zcard("rq:wip:batches") == len(jobs))
    first.kill()
    begin(workers, "batches")
    (tmp_path / "go").touch()
    for job in jobs:
        wait_for_result(job, "60s")
    assert [redis.hget(f"rq:job:{job.id}", "worker_died") for job in jobs] == [b"1"] * len(jobs)


def test_an_outage_of_redis_under_load_loses_no_job(workers, tmp_path, log, monkeypatch, settings):
    folder = tmp_path / "redis"
    monkeypatch.setenv("REDIS_URL", f"unix://{ensure_server(folder)}")
    from rqjobs.broker.connection import connect

    redis = connect(os.environ["REDIS_URL"])
    process = begin(workers, "tasks")
    enqueue_many([Task(do="sleep", mark=str(n), args={"seconds": 0.2}) for n in range(1000)], connection=redis)
    eventually(lambda: len(notes(log)) > 200)
    stop_server(folder)
    time.sleep(5)
    assert process.poll() is None
    ensure_server(folder)
    eventually(lambda: redis.hget("rqjobs:totals:tasks", "completed") == b"1000")
    assert {words[0] for words in notes(log) if words[2] == "ends"} == {str(n) for n in range(1000)}
    assert "redis is back" in workers.logs()
    redis.close()
    workers.stop()
    stop_server(folder)


def test_a_backlog_does_not_starve_the_others(workers, redis, log):
    enqueue_many([Task(do="sleep", mark=f"b{n}", args={"seconds": 0.05}) for n in range(10_000)])
    redis.lpush("rq:queue:tasks", *[f"gone{n}" for n in range(50_000)])  # what expired is passed over
    begin(workers, "tasks", "coroutines", "processes")
    eventually(lambda: len(notes(log)) > 50)
    now = time.time()
    jobs = [enqueue(CoroutineTask(mark="c")), enqueue(ProcessTask(mark="p"))]
    eventually(lambda: {"c", "p"} <= set(times(log)))
    began = [fetch_job(job.id, redis).started_at.timestamp() for job in jobs]  # a process takes its time after that
    for moment in (times(log)["c"], *began):
        assert sum(now < other < moment for other in times(log).values()) < 2_000  # a second's, two on a slow machine


def test_an_idle_worker_sleeps(workers):
    process = begin(workers, *ALL)
    measured = psutil.Process(process.pid)
    used = []

    def is_idle():  # not at once: a start takes its time, and a busy machine takes more for the same
        before = sum(measured.cpu_times()[:2])
        time.sleep(3)
        used.append(sum(measured.cpu_times()[:2]) - before)
        return used[-1] < 0.03 * 3  # one hundredth on an idle machine: test_engine_long

    eventually(is_idle, 20)


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
        eventually(lambda job=job: job.get_status() == "stopped")


def test_a_busy_worker_writes_the_record_of_an_execution_where_a_job_runs_for_long(workers, redis, log, tmp_path):
    enqueue_many([Task(mark=str(n)) for n in range(2_000)])
    long = enqueue(Task(do="wait", mark="long", args={"file": str(tmp_path / "go")}))
    enqueue_many([Task(mark=str(n)) for n in range(2_000, 4_000)])
    begin(workers, "tasks")
    eventually(lambda: "long" in times(log))
    executions = fetch_job(long.id, redis).get_executions
    eventually(lambda: len(executions()) == 1)
    assert executions()[0].job_id == long.id
    (tmp_path / "go").touch()
    wait_for_result(long, "60s")
    eventually(lambda: redis.hget("rqjobs:totals:tasks", "completed") == b"4001")
    assert redis.keys("rq:execution*") == []
