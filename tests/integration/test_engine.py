"""The engine in one process: outcomes, lanes, limits, what Redis holds afterwards."""

from __future__ import annotations

import gc
import threading
import time
from datetime import timedelta

import pytest
import redis as redis_py
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from rqjobs.broker.attempts import read_history
from rqjobs.broker.rq_schema import fetch_job
from rqjobs.config.settings import use_settings
from rqjobs.enqueueing import enqueue, enqueue_many
from rqjobs.monitoring.queue_health import pause, resume
from rqjobs.worker import claimed_job, engine_worker, loop
from rqjobs.worker.claimed_job import ClaimedJob
from rqjobs.worker.job_log import JobLog
from rqjobs.worker.loop import WorkerLoop
from rqjobs.worker.run import run_worker
from tests.support import tasks
from tests.support.tasks import BatchTask, CoroutineTask, HeldTask, ProcessTask, Task, notes
from tests.support.workers import eventually


@pytest.fixture(autouse=True)
def log(redis, tmp_path, monkeypatch):
    monkeypatch.setenv("TASKS_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("RQJOBS_IMPORT", "tests.support.tasks")
    monkeypatch.setenv("PYTHONPATH", str(tasks.Path(__file__).parent.parent.parent))
    return tmp_path / "log"


def burst(*queues: str, **options) -> None:
    run_worker(list(queues) or ["tasks"], burst=True, **options)


@pytest.mark.parametrize("model", [Task, CoroutineTask, BatchTask, ProcessTask])
def test_a_job_is_done(redis, model):
    job = enqueue(model(mark="a"))
    burst(model.queue)
    job.refresh()
    assert job.get_status() == "finished"
    assert job.return_value() in ({"attempt": 1, "of": 3}, {"attempt": 1}, {"batch": 1})
    assert redis.hgetall(f"rqjobs:totals:{model.queue}") == {b"completed": b"1"}
    assert redis.zcard(f"rq:wip:{model.queue}") == 0
    assert not redis.keys("rq:execution*")


@pytest.mark.parametrize("model", [Task, CoroutineTask, BatchTask, ProcessTask])
def test_a_failure_is_retried_after_its_wait(redis, model):
    job = enqueue(model(do="fail", mark="a", args={"times": 1}), attempts=2, backoff="fixed:100s")
    began = time.time()
    burst(model.queue)
    job.refresh()
    assert job.get_status() == "scheduled"
    assert began + 100 <= redis.zscore(f"rq:scheduled:{model.queue}", job.id) <= time.time() + 100
    redis.zadd(f"rq:scheduled:{model.queue}", {job.id: time.time()})
    burst(model.queue)
    job.refresh()
    assert job.get_status() == "finished"
    first, second = read_history(job)
    assert (first.outcome, second.outcome) == ("retried", "done")
    assert first.error == "ValueError: attempt 1 failed"


@pytest.mark.parametrize("model", [Task, CoroutineTask, BatchTask, ProcessTask])
def test_a_permanent_failure_is_dead_at_once(redis, model):
    job = enqueue(model(do="dead"))
    burst(model.queue)
    job.refresh()
    assert job.get_status() == "failed"
    assert job.retries_left == 0
    assert redis.zcard(f"rq:failed:{model.queue}") == 1
    assert read_history(job)[0].error == "it cannot be done"
    assert redis.hgetall(f"rqjobs:totals:{model.queue}") == {b"failed": b"1"}


def test_only_the_slow_job_of_a_batch_fails(redis, log):
    """The second time it runs with few others, the third time alone."""
    slow = BatchTask(do="wait", mark="slow", args={"file": "never"})
    jobs = enqueue_many([*(BatchTask() for _ in range(15)), slow], attempts=3, backoff="fixed:0s", timeout="2s")
    burst("batches")
    assert [fetch_job(job.id, redis).get_status() for job in jobs] == ["finished"] * 15 + ["failed"]
    assert "ran past its time limit" in read_history(fetch_job(jobs[-1].id, redis))[-1].error
    first, second, third = (int(words[2].rpartition("-")[2]) for words in notes(log) if words[0] == "slow")
    assert first == 16
    assert second <= 10
    assert third == 1


def test_a_result_that_redis_would_refuse_is_not_kept(redis, monkeypatch):
    monkeypatch.setattr(claimed_job, "MAX_RESULT_BYTES", 10)
    job = enqueue(Task(mark="a"))
    burst()
    job.refresh()
    assert (job.get_status(), job.return_value()) == ("finished", "Return value too large to be kept")


def test_used_up_attempts_are_dead(redis):
    job = enqueue(Task(do="fail"), attempts=3, backoff="fixed:0s")
    burst()
    job.refresh()
    assert job.get_status() == "failed"
    assert [record.error for record in read_history(job)] == [f"ValueError: attempt {n} failed" for n in (1, 2, 3)]


@pytest.mark.parametrize("counts", [True, False])
def test_retry_later_sets_the_time_of_the_next_attempt(redis, counts):
    job = enqueue(Task(do="later", args={"after": 100, "counts": counts, "times": 9}), attempts=3)
    began = time.time()
    burst()
    job.refresh()
    assert job.retries_left == (1 if counts else 2)
    assert began + 100 <= redis.zscore("rq:scheduled:tasks", job.id) <= time.time() + 100


def test_admit_holds_a_job_without_an_attempt(redis):
    job = enqueue(HeldTask(mark="a"))
    started = time.monotonic()
    burst("held")
    assert time.monotonic() - started >= 0.5
    assert fetch_job(job.id, redis).return_value() == {"attempt": 1, "of": 3}


def test_lanes_are_taken_in_order(redis, log):
    for priority in ("low", "normal", "high"):
        enqueue(Task(mark=priority), priority=priority)
    burst(threads=1)
    assert [words[0] for words in notes(log) if words[2] == "begins"] == ["high", "normal", "low"]


def test_a_paused_queue_is_left_alone(redis):
    job = enqueue(Task())
    pause("email")
    redis.sadd("rqjobs:paused", "tasks")
    burst()
    assert job.get_status() == "queued"
    redis.srem("rqjobs:paused", "tasks")
    resume("email")
    burst()
    assert job.get_status() == "finished"


def test_only_the_last_hundred_are_kept(redis):
    enqueue_many([Task(mark=str(n)) for n in range(250)])
    burst()
    assert redis.zcard("rq:finished:tasks") == 100
    assert len(redis.keys("rq:job:*")) == 100
    assert redis.hget("rqjobs:totals:tasks", "completed") == b"250"


def test_a_time_limit_ends_a_busy_thread(redis):
    job = enqueue(Task(do="spin", args={"seconds": 60}), attempts=1, timeout=timedelta(seconds=1))
    started = time.monotonic()
    burst()
    assert time.monotonic() - started < 30
    assert "time limit of 1 s" in str(read_history(fetch_job(job.id, redis))[0].error)


def test_a_time_limit_ends_coroutines_and_no_others(redis):
    late, well, later = (
        enqueue(CoroutineTask(do="sleep", args={"seconds": seconds}), attempts=1, timeout=timedelta(seconds=limit))
        for seconds, limit in [(60, 1), (2, 60), (60, 2)]
    )
    started = time.monotonic()
    burst("coroutines")
    assert 2 <= time.monotonic() - started < 30
    assert well.get_status() == "finished"
    for job, limit in (late, 1), (later, 2):
        assert f"time limit of {limit} s" in str(read_history(fetch_job(job.id, redis))[0].error)


def test_a_time_limit_kills_a_process(redis):
    job = enqueue(ProcessTask(do="sleep", args={"seconds": 60}), attempts=1, timeout=timedelta(seconds=1))
    started = time.monotonic()
    burst("processes")
    assert time.monotonic() - started < 30
    assert "time limit of 1 s" in str(read_history(fetch_job(job.id, redis))[0].error)


def test_a_process_that_dies_is_a_failed_attempt(redis):
    job = enqueue(ProcessTask(do="exit"), attempts=1)
    burst("processes")
    assert "exit code 3" in str(read_history(fetch_job(job.id, redis))[0].error)


@pytest.mark.parametrize("model", [Task, ProcessTask])
def test_progress_that_redis_does_not_take_fails_no_job(redis, monkeypatch, model):
    def away(*_args):
        raise redis_py.TimeoutError

    monkeypatch.setattr(engine_worker, "run_script", away)
    job = enqueue(model(do="report"))
    burst(model.queue)
    assert [run.outcome for run in read_history(job)] == ["done"]


@pytest.mark.parametrize("backoff", ["fixed:0s", "fixed:0.1s"])
def test_a_job_that_is_deleted_while_it_runs_leaves_nothing(redis, monkeypatch, backoff):
    job = enqueue(Task(), attempts=2, backoff=backoff)

    def fail(*_args):
        redis.delete(job.key)
        raise ValueError

    monkeypatch.setattr(tasks, "_raise", fail)
    burst()
    time.sleep(0.2)
    burst()
    assert not redis.exists(job.key)
    assert not redis.exists("rq:wip:tasks", "rq:queue:tasks", "rq:scheduled:tasks")


def test_a_push_before_an_older_response_is_not_lost(redis, monkeypatch):
    """A job is scheduled after Redis has said when the next is due, and we hear of it before we read that answer."""
    wires, opened, scheduled = [], WorkerLoop._open, WorkerLoop._scheduled
    jobs, forgotten = [], []

    def open_(self):
        wires.append(opened(self))
        return wires[-1]

    def late(self, longest, answer):
        def heard():
            wires[-1].sleep(0.1)
            self._read_pushed(wires[-1].pushed_messages(time.monotonic()))
            return self._schedule_at == 0.0

        if not jobs:
            forgotten.append(threading.Timer(60, self.stop, (0, "forgotten")))
            forgotten[0].start()
            jobs.append(enqueue(Task(), delay="0.1s"))
            eventually(heard)
        scheduled(self, longest, answer)

    monkeypatch.setattr(WorkerLoop, "_open", open_)
    monkeypatch.setattr(WorkerLoop, "_scheduled", late)
    monkeypatch.setattr(loop, "SCHEDULE_INTERVAL", 1000.0)
    run_worker(["tasks"], max_jobs=1)
    forgotten[0].cancel()
    assert jobs[0].get_status() == "finished"


def test_unregistered_functions_never_run(redis):
    queue = Queue("tasks", connection=redis, serializer=JSONSerializer)
    named = queue.enqueue("os.system", "touch /tmp/rqjobs-pwned")
    other = enqueue(Task())
    redis.hset(f"rq:job:{other.id}", "data", b"\x80\x04N.")
    odd = enqueue(Task())
    redis.hset(f"rq:job:{odd.id}", "retry_intervals", b"{")
    burst()
    for job_id in (named.id, other.id, odd.id):
        assert redis.hget(f"rq:job:{job_id}", "status") == b"failed", job_id
    assert "not a registered function" in str(Job.fetch(named.id, redis, JSONSerializer).latest_result().exc_string)


def test_a_job_with_a_forged_id_never_runs(redis, log):
    model = enqueue(Task(do="note"))
    forged = "x\r\nHost: internal"
    redis.rename(model.key, f"rq:job:{forged}")
    redis.delete("rq:queue:tasks")
    redis.rpush("rq:queue:tasks", forged)
    other = enqueue(Task())
    burst()
    assert redis.hget(f"rq:job:{forged}", "status") == b"failed"
    assert other.get_status() == "finished"


def test_max_jobs_is_exact(redis):
    enqueue_many([Task(mark=str(n)) for n in range(30)])
    run_worker(["tasks"], max_jobs=12)
    assert redis.llen("rq:queue:tasks") == 18


def test_a_fast_worker_releases_the_memory_of_ended_jobs(redis, monkeypatch):
    monkeypatch.setattr(loop, "RECORD_AFTER", 60.0)
    alive: list[int] = []

    def settled(_log: JobLog, _job: ClaimedJob) -> None:
        settled.count += 1
        if settled.count % 500 == 0:
            alive.append(sum(isinstance(each, ClaimedJob) for each in gc.get_objects()))

    settled.count = 0
    monkeypatch.setattr(JobLog, "settled", settled)
    enqueue_many([Task(mark=str(n)) for n in range(4000)])
    burst()
    assert len(alive) == 8
    assert max(alive) < 2000  # of 4,000 that came: what waits for its turn or to be written


def test_a_rate_limit_holds_jobs_in_their_queue(redis, log, monkeypatch):
    monkeypatch.setenv("RQJOBS_TASKS_RATE", "10/s")
    use_settings(None)
    enqueue_many([Task(mark=str(n)) for n in range(25)])
    burst()
    starts = sorted(float(words[3]) for words in notes(log) if words[2] == "begins")
    assert len(starts) == 25
    assert starts[-1] - starts[0] > 1.4  # ten at once, then ten a second


def test_a_rate_limit_admits_its_burst_at_once(redis, monkeypatch):
    monkeypatch.setenv("RQJOBS_TASKS_RATE", "10/h")
    use_settings(None)
    enqueue_many([Task(mark=str(n)) for n in range(25)])
    run_worker(["tasks"], max_jobs=10)  # ends
    assert redis.llen("rq:queue:tasks") == 15


def test_a_resumed_queue_wakes_the_worker(redis, log, monkeypatch):
    monkeypatch.setattr(loop, "POLL_INTERVAL", 3600.0)  # it is told
    pause("webhooks")
    redis.sadd("rqjobs:paused", "tasks")
    job = enqueue(Task(mark="a"))
    thread = threading.Thread(target=run_worker, args=(["tasks"],), kwargs={"max_jobs": 1})
    thread.start()
    time.sleep(1.5)
    assert job.get_status() == "queued"
    redis.srem("rqjobs:paused", "tasks")
    thread.join(60)
    assert job.get_status() == "finished"
