"""Keys of another type, numbers out of range, ids that are none: one such job never holds up the others."""

from __future__ import annotations

import json
import time

import pytest
from redis.exceptions import ResponseError

from rqjobs import enqueue, enqueue_many
from rqjobs.broker import keys
from rqjobs.broker.attempts import read_history
from rqjobs.broker.rq_schema import fetch_job, run_script, timestamp
from rqjobs.database import get_engine
from rqjobs.database.schema import init_database
from rqjobs.dead_letters.letters import requeue
from rqjobs.outbox.relay import relay
from tests.support.holds import Queue
from tests.support.processors import ProbeJob
from tests.support.tasks import BatchTask, CoroutineTask, Task
from tests.support.workers import eventually

ENV = {"RQJOBS_IMPORT": "tests.support.tasks tests.support.processors"}
HOW_MANY = 20


def set_field(field, value):
    return lambda redis, job_id: redis.hset(f"rq:job:{job_id}", field, value)


def make_string(key):
    def spoil(redis, job_id):
        redis.delete(key.format(job_id))
        redis.set(key.format(job_id), "not RQ's")

    return spoil


REFUSED = {
    "results": make_string("rq:results:{}"),
    "result-ttl": set_field("result_ttl", 10**17),
}
"""What lets a job run, and its outcome not be written."""

UNREADABLE = {
    "retry-intervals": set_field("retry_intervals", "[NaN]"),
    "timeout": set_field("timeout", "soon"),
}


def burst(workers, *queues, **more):
    done = workers.run("worker", *queues, "--burst", **ENV, **more)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("model", [Task, CoroutineTask, BatchTask])
@pytest.mark.parametrize("how", REFUSED)
def test_a_job_whose_outcome_cannot_be_written_is_dead_and_the_others_are_done(workers, redis, model, how):
    jobs = enqueue_many([model(mark=str(n)) for n in range(HOW_MANY)])
    REFUSED[how](redis, jobs[7].id)
    log = burst(workers, model.queue)
    totals = redis.hgetall(f"rqjobs:totals:{model.queue}")
    assert totals == {b"completed": b"%d" % (HOW_MANY - 1), b"failed": b"1"}
    assert redis.zcard(f"rq:wip:{model.queue}") == 0
    assert "redis refused an outcome" in log
    dead = fetch_job(jobs[7].id, redis)
    assert dead.get_status() == "failed"
    assert "it ran, but Redis refused its outcome (done)" in str(read_history(dead)[-1].error)
    redis.hdel(f"rq:job:{dead.id}", "result_ttl")
    assert requeue([dead.id], connection=redis)  # mended, it can be done again
    burst(workers, model.queue)
    assert fetch_job(dead.id, redis).get_status() == "finished"


@pytest.mark.parametrize("how", UNREADABLE)
def test_a_job_that_cannot_be_read_is_dead_and_the_others_are_done(workers, redis, how):
    jobs = enqueue_many([Task(mark=str(n)) for n in range(HOW_MANY)])
    UNREADABLE[how](redis, jobs[7].id)
    burst(workers, "tasks")
    assert redis.hgetall("rqjobs:totals:tasks") == {b"completed": b"%d" % (HOW_MANY - 1), b"failed": b"1"}
    assert redis.zrange("rq:failed:tasks", 0, -1) == [jobs[7].id.encode()]


@pytest.mark.parametrize("special", [True, False])
def test_a_failing_job_is_not_retried_for_ever_when_its_outcome_cannot_be_written(workers, redis, special):
    (job,) = enqueue_many([Task(do="fail")], attempts=2, backoff="fixed:0s")
    if special:  # RQ's own path
        redis.hset(f"rq:job:{job.id}", "group_id", "x")
    make_string("rq:results:{}")(redis, job.id)
    burst(workers, "tasks")
    assert redis.zcard("rq:wip:tasks") == 0
    assert redis.hget(f"rq:job:{job.id}", "status") == b"failed"
    assert redis.zscore("rq:failed:tasks", job.id)


def test_an_index_of_the_wrong_type_fails_no_job(workers, redis):
    """Reserving pops many ids at once: whatever is wrong with one of them, the others are marked as taken."""
    jobs = enqueue_many([Task(mark=str(n)) for n in range(HOW_MANY)])
    make_string("rq:executions:{}")(redis, jobs[7].id)
    burst(workers, "tasks")
    assert redis.hget("rqjobs:totals:tasks", "completed") == b"%d" % HOW_MANY


def test_a_dead_job_whose_queue_is_of_another_type_stays_dead(workers, redis):
    (job,) = enqueue_many([Task(do="fail")], attempts=1)
    burst(workers, "tasks")
    redis.set("rq:queue:tasks", "not RQ's")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        requeue([job.id], connection=redis)
    assert redis.zscore("rq:failed:tasks", job.id)
    assert redis.hget(f"rq:job:{job.id}", "status") == b"failed"
    refused = workers.run("failed", "requeue", "--all", **ENV)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: a key of RQ's or ours is of another type")
    redis.delete("rq:queue:tasks")
    assert requeue([job.id], connection=redis) == [job.id]
    assert redis.lrange("rq:queue:tasks", 0, -1) == [job.id.encode()]


@pytest.mark.parametrize("how_many", [1, 3])
@pytest.mark.parametrize(("key", "more"), [("queue", {}), ("scheduled", {"delay": "1h"})])
def test_a_job_for_a_key_of_another_type_is_refused_and_leaves_nothing(redis, key, more, how_many):
    redis.set(f"rq:{key}:tasks", "not RQ's")
    jobs = [Task(mark=str(n)) for n in range(how_many)]
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        enqueue_many(jobs, **more) if how_many > 1 else enqueue(jobs[0], **more)
    assert not redis.keys("rq:job:*")
    if key == "scheduled":  # what need not wait there is taken
        enqueue(jobs[0])
        assert redis.llen("rq:queue:tasks") == 1


def test_a_hash_of_another_type_keeps_no_other_job_out_of_its_queue(redis):
    init_database(get_engine())
    ids = ["good1", "bad", "good2"]
    pairs = [(Task(mark=job_id), {"job_id": job_id}) for job_id in ids]
    redis.set("rq:job:bad", "not RQ's")
    with get_engine().begin() as connection:
        enqueue_many(pairs, outbox=connection)
    for move in (relay, lambda: enqueue_many(pairs)):
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            move()
        assert redis.keys("*") == [b"rq:job:bad"]
    redis.delete("rq:job:bad")
    assert relay() == len(ids)
    assert redis.lrange("rq:queue:tasks", 0, -1) == [job_id.encode() for job_id in ids]


def test_an_id_that_rq_could_not_have_made_is_dropped(workers, redis):
    (job,) = enqueue_many([Task(mark="a")])
    redis.restore(b"rq:job:\xff\xfe", 0, redis.dump(f"rq:job:{job.id}"))
    redis.lpush("rq:queue:tasks", b"\xff\xfe")
    assert "not a job id" in burst(workers, "tasks", RQJOBS_LEASE="1")
    assert fetch_job(job.id, redis).get_status() == "finished"
    eventually(lambda: burst(workers, "tasks") and redis.zcard("rq:wip:tasks") == 0)  # once its lease has run out
    assert redis.zcard("rq:failed:tasks") == 0


@pytest.mark.parametrize("key", ["wip", "queue", "scheduled", "finished", "failed"])
def test_a_queue_with_a_broken_key_does_not_stop_the_others(workers, redis, key):
    jobs = enqueue_many([CoroutineTask(mark="a"), BatchTask(mark="b")])
    waiting = enqueue_many([Task(mark=str(n)) for n in range(HOW_MANY)])
    later = enqueue_many([Task(mark=f"later {n}") for n in range(HOW_MANY)], delay="0.1s")
    soon = enqueue_many([CoroutineTask(mark="soon")], delay="0.1s")
    name = f"rq:{key}:tasks"
    kept = redis.dump(name)
    redis.set(name, "not RQ's")
    time.sleep(0.15)
    burst(workers, "tasks", "coroutines", "batches", RQJOBS_LEASE="1")
    assert {fetch_job(job.id, redis).get_status() for job in [*jobs, *soon]} == {"finished"}
    redis.delete(name)  # somebody mends it
    if kept is not None:
        redis.restore(name, 0, kept)
    left = lambda: redis.zcard("rq:wip:tasks") + redis.llen("rq:queue:tasks") + redis.zcard("rq:scheduled:tasks")  # noqa: E731
    eventually(lambda: burst(workers, "tasks") and not left())  # once the leases have run out
    ended = [redis.hget(f"rq:job:{job.id}", "status") for job in [*waiting, *later]]
    assert set(ended) <= {b"finished", b"failed"}, ended  # none is lost


def test_no_outcome_is_written_for_a_lane_that_is_out_of_use(redis):
    """Written in part, the retried job would wait in the queue and run at the same time."""
    retried, dead = (job.id for job in enqueue_many([ProbeJob(log="x"), ProbeJob(log="x")]))
    first, second = Queue(redis).reserve(2)
    redis.set("rq:failed:probe", "not RQ's")
    words = [keys.PREFIX, "w", timestamp(), 100_000, 500, 1, "probe", "probe", ""]
    times = (1.0, 2.0, timestamp(), timestamp())
    words += ("retry", first.job_id, first.execution, 1, *times, "", 0, 1, 1, "")
    words += ("dead", second.job_id, second.execution, 1, *times, "", 60, 0, 2, "1 2 x")
    _lost, _parents, refused, *_rest = run_script("finish", redis, words)
    assert refused == [0, refused[1], 1, refused[1]]
    assert b"rq:failed:probe is of another type" in refused[1]
    assert redis.llen("rq:queue:probe") == 0
    assert redis.zcard("rq:wip:probe") == 2
    assert {redis.hget(f"rq:job:{job_id}", "status") for job_id in (retried, dead)} == {b"started"}
    redis.delete("rq:failed:probe")
    assert run_script("finish", redis, words)[:3] == [[], [], []]
    assert redis.lrange("rq:queue:probe", 0, -1) == [retried.encode()]
    assert redis.zrange("rq:failed:probe", 0, -1) == [dead.encode()]


def test_the_worker_logs_which_key_is_broken(workers, redis):
    redis.set("rq:failed:probe", "not RQ's")
    workers.start("probe", "tasks", **ENV)
    eventually(lambda: "rq:failed:probe" in workers.logs())
    redis.delete("rq:failed:probe")
    (job,) = enqueue_many([ProbeJob(log="log")])
    eventually(lambda: fetch_job(job.id, redis).get_status() == "finished")


@pytest.mark.parametrize(
    "message", ["[]", "{", '{"command": "stop-job"}', '{"command": 7}', '"x"', "[" * 100_000, "[[1]]"]
)
def test_no_message_on_its_channel_ends_a_worker(workers, redis, message):
    process = workers.start("tasks", **ENV)
    (worker,) = eventually(lambda: redis.smembers("rq:workers"))
    name = worker.decode().rpartition(":")[2]
    eventually(lambda: redis.publish(f"rq:pubsub:{name}", message))
    (job,) = enqueue_many([Task()])
    eventually(lambda: fetch_job(job.id, redis).get_status() == "finished")
    assert process.poll() is None
    redis.publish(f"rq:pubsub:{name}", json.dumps({"command": "shutdown"}))
    assert process.wait(60) == 0
