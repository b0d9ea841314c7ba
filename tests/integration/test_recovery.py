"""What becomes of the jobs of dead workers, of every kind; and that a lease that was lost is never written over."""

from __future__ import annotations

import threading
import time

import pytest
import redis as redis_py
from rq import Callback, Queue, Repeat, Retry
from rq.rate_limit import RateLimit
from rq.serializers import JSONSerializer

from rqjobs.broker import keys
from rqjobs.broker.attempts import read_history
from rqjobs.broker.rq_schema import RegisteredJob, fetch_job
from rqjobs.config.settings import get_settings
from rqjobs.policies import get_policy
from rqjobs.worker import maintenance
from rqjobs.worker.engine_worker import EngineWorker
from rqjobs.worker.rescue import rescue
from rqjobs.worker.run import run_worker
from tests.support.tasks import leave_a_note
from tests.support.workers import ROOT

ENTRY = "rqjobs.worker.entry.perform"


@pytest.fixture(autouse=True)
def environment(monkeypatch, redis):
    monkeypatch.setenv("RQJOBS_IMPORT", "tests.support.tasks")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    while redis.info("server")["uptime_in_seconds"] < 5:  # before that nobody is taken for dead
        time.sleep(0.2)


@pytest.fixture
def queue(redis):
    return Queue("tasks", connection=redis, serializer=JSONSerializer, job_class=RegisteredJob)


def put(queue, do="return", job_id="a", **options):
    return queue.enqueue(ENTRY, args=("tasks", {"do": do}), job_id=job_id, description="task", **options)


def worker_dies(queue, job_id="a", ago=1, **fields):
    """As a worker leaves it that was killed in the middle of the job, whose lease has run out."""
    redis = queue.connection
    redis.lrem(queue.key, 0, job_id)
    redis.hset(f"rq:job:{job_id}", mapping={"status": "started", "worker_name": "gone", **fields})
    redis.zadd(f"rq:wip:{queue.name}", {f"{job_id}:x": time.time() - ago})
    redis.sadd("rq:worker:gone:executions", f"{job_id}:x")
    redis.hset(f"rq:execution:{job_id}:x", mapping={"id": "x", "job_id": job_id})


def burst():
    run_worker(["tasks"], burst=True)


SPECIAL = {
    "plain": {},
    "callbacks": {"on_failure": Callback(leave_a_note)},
    "rate limit": {"rate_limit": RateLimit("narrow", 1)},
    "repeat": {"repeat": Repeat(times=1, interval=60)},
    "at front": {"retry": Retry(1, 0, enqueue_at_front=True)},
}


@pytest.mark.parametrize("kind", SPECIAL)
def test_a_rescued_job_is_retried_and_its_history_has_the_reason(redis, queue, kind):
    put(queue, **{"retry": Retry(1), **SPECIAL[kind]})
    worker_dies(queue)
    burst()
    job = fetch_job("a", redis)
    first, second = read_history(job)
    assert (first.outcome, second.outcome) == ("retried", "done")
    assert "died" in str(first.error)
    assert redis.zcard("rq:wip:tasks") == 0
    assert redis.hget("rqjobs:totals:tasks", "retried") == b"1"
    assert redis.get("noted") == (b"1" if kind == "callbacks" else None)
    assert not redis.exists("rq:worker:gone:executions", "rq:execution:a:x")


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("died", [0, 2])
def test_it_is_dead_when_it_may_not_be_tried_again(redis, queue, kind, died):
    """No attempt is left, or two workers have died under it before."""
    options = dict(SPECIAL[kind])
    if died:
        options["retry"] = Retry(5)
    else:
        options.pop("retry", None)
    put(queue, **options)
    worker_dies(queue, worker_died=died)
    burst()
    assert redis.hget("rq:job:a", "status") == b"failed"
    assert redis.zscore("rq:failed:tasks", "a")
    assert ("3 workers died" if died else "last attempt died") in str(read_history(fetch_job("a", redis))[-1].error)
    assert redis.zcard("rq:wip:tasks") == 0
    assert redis.hget("rqjobs:totals:tasks", "failed") == b"1"
    assert not redis.exists("rq:rl:narrow:allowed")  # its slot is free again


def test_dependents_start_only_after_the_end_of_their_dependency(redis, queue):
    first = put(queue, retry=Retry(1))
    put(queue, job_id="b", depends_on=first)
    worker_dies(queue)
    burst()
    assert [fetch_job(job_id, redis).get_status() for job_id in "ab"] == ["finished", "finished"]


def test_two_workers_take_back_a_job_once(redis, queue):
    for n in range(20):
        put(queue, job_id=f"a{n}", retry=Retry(3), on_failure=Callback(leave_a_note))
        worker_dies(queue, f"a{n}")
    threads = [threading.Thread(target=burst) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert redis.get("noted") == b"20"
    for n in range(20):
        assert [record.outcome for record in read_history(fetch_job(f"a{n}", redis))] == ["retried", "done"]


@pytest.mark.parametrize("special", [True, False])
def test_an_unreadable_job_is_dead(redis, queue, special):
    put(queue, retry=Retry(3), **({"on_failure": Callback(leave_a_note)} if special else {}))
    worker_dies(queue, retries_left="many", worker_died="often", retry_intervals="[")
    burst()
    burst()
    assert redis.hget("rq:job:a", "status") == b"failed"
    assert redis.zcard("rq:wip:tasks") == 0


def test_a_registry_entry_that_is_none_is_dropped(redis, queue):
    put(queue)
    redis.zadd("rq:wip:tasks", {"nonsense": 1, "gone:x": 1, b"\xff:x": 1, "": 1})
    burst()
    assert redis.zcard("rq:wip:tasks") == 0
    assert fetch_job("a", redis).get_status() == "finished"


def test_a_worker_known_to_be_dead_need_not_wait_for_its_leases(redis, queue):
    put(queue, job_id="a", retry=Retry(1))
    put(queue, job_id="b", retry=Retry(1), on_failure=Callback(leave_a_note))
    put(queue, job_id="c")
    worker_dies(queue, "a", ago=-60)
    worker_dies(queue, "b", ago=-60)
    worker_dies(queue, "c", ago=-60)
    redis.srem("rq:worker:gone:executions", "c:x")
    rescue(redis, ["tasks"], get_settings(), dead="gone")
    assert redis.lrange("rq:queue:tasks", 0, -1) == [b"a"]
    time.sleep(1.1)
    burst()  # RQ's own methods take the special one back: a living worker has them
    assert fetch_job("b", redis).get_status() == "finished"
    assert redis.zrange("rq:wip:tasks", 0, -1) == [b"c:x"]  # another worker's


def test_only_the_running_batch_of_a_dead_worker_counts_another_death(redis, queue):
    """Each has had a worker die under it before; the one that died now had said what it ran."""
    for job_id in "ab":
        put(queue, job_id=job_id, retry=Retry(3))
    worker_dies(queue, "a", ago=-60, worker_died=1)
    worker_dies(queue, "b", ago=-60, worker_died=1)
    redis.zrem("rq:wip:tasks", "b:x")
    redis.zadd("rq:wip:tasks", {"b:y": time.time() + 60})
    redis.sadd("rq:worker:gone:executions", "b:y")
    redis.set(keys.running("tasks", "gone"), "w y z")
    rescue(redis, ["tasks"], get_settings(), dead="gone")
    assert sorted(redis.lrange("rq:queue:tasks", 0, -1)) == [b"a", b"b"]
    assert redis.hmget("rq:job:a", "worker_died", "retries_left") == [b"1", b"3"]
    assert redis.hmget("rq:job:b", "worker_died", "retries_left") == [b"2", b"2"]


def test_when_the_clock_of_redis_leaps_the_living_have_time_to_renew_their_leases(redis, queue, monkeypatch):
    """It was set, or the machine slept: by that clock all leases have run out at once, and nobody need be dead."""
    put(queue, retry=Retry(1))
    run_script, leap, held = maintenance.run_script, [0], []

    def leaping(name, *args):
        answer = run_script(name, *args)
        return [answer[0], float(answer[1]) + leap[-1], *answer[2:]] if name == "renew" else answer

    def start(self):
        self.tick()
        worker_dies(queue)
        leap.append(3600)
        self._next = 0.0
        self.tick()
        held.append(redis.zcard("rq:wip:tasks"))
        self._next = self._recover_after = self._renewed_at = 0.0
        self.tick()  # the others had their time
        held.append(redis.zcard("rq:wip:tasks"))

    monkeypatch.setattr(maintenance, "run_script", leaping)
    monkeypatch.setattr(maintenance.Maintenance, "start", start)
    monkeypatch.setattr(maintenance.Maintenance, "stop", lambda _self: None)
    burst()
    assert held == [1, 0]
    assert fetch_job("a", redis).get_status() == "finished"


@pytest.mark.parametrize("dead", ["", "gone"])
def test_however_many_jobs_a_worker_had_they_are_back_at_once(redis, queue, dead):
    ids = [f"a{n}" for n in range(1200)]
    with redis.pipeline(transaction=False) as pipeline:
        for job_id in ids:
            pipeline.hset(f"rq:job:{job_id}", mapping={"status": "started", "worker_name": "gone", "retries_left": 1})
            pipeline.zadd("rq:wip:tasks", {f"{job_id}:x": time.time() + (60 if dead else -1)})
            pipeline.sadd("rq:worker:gone:executions", f"{job_id}:x")
        pipeline.execute()
    rescue(redis, ["tasks"], get_settings(), dead=dead)
    assert sorted(redis.lrange("rq:queue:tasks", 0, -1)) == sorted(job_id.encode() for job_id in ids)
    assert not redis.exists("rq:wip:tasks", "rq:worker:gone:executions")


@pytest.mark.parametrize("kind", ["plain", "dependents", "callback", "repeat"])
def test_a_lost_lease_is_never_written_over(redis, queue, kind, tmp_path):
    """The job loses its lease while it runs, as if this worker had been stopped for too long."""
    options = {"callback": {"on_success": Callback(leave_a_note)}, "repeat": {"repeat": Repeat(1, 60)}}.get(kind, {})
    wait = {"do": "wait", "args": {"file": str(tmp_path / "go")}}
    first = queue.enqueue(ENTRY, args=("tasks", wait), job_id="a", **options)
    if kind == "dependents":
        put(queue, job_id="b", depends_on=first)
    thread = threading.Thread(target=burst)
    thread.start()
    while not (members := redis.zrange("rq:wip:tasks", 0, -1)):
        time.sleep(0.01)
    redis.zrem("rq:wip:tasks", *members)
    redis.zadd("rq:wip:tasks", {"a:another": time.time() + 60})  # another worker has it now
    (tmp_path / "go").touch()
    thread.join(60)
    assert redis.hget("rq:job:a", "status") == b"started"
    assert redis.zrange("rq:wip:tasks", 0, -1) == [b"a:another"]
    assert not redis.exists("rq:results:a", "rq:finished:tasks", "rqjobs:totals:tasks", "noted", "rq:scheduled:tasks")
    if kind == "dependents":
        assert redis.hget("rq:job:b", "status") == b"deferred"


def test_a_worker_registers_again_when_its_record_has_expired(redis):
    """Redis came back empty: the loop writes the worker's counters at the same moment."""
    worker = EngineWorker([get_policy("tasks")], redis, get_settings())
    over = threading.Event()

    def count() -> None:
        client = redis_py.Redis(connection_pool=redis.connection_pool)
        while not over.is_set():
            client.hincrby(worker.key, "successful_job_count", 1)

    counting = threading.Thread(target=count)
    counting.start()
    try:
        for _ in range(50):
            redis.delete(worker.key)
            worker.register_again()
            assert redis.hexists(worker.key, "birth")
    finally:
        over.set()
        counting.join()
        worker.close()
