"""Time is Redis' time: a process whose clock is ten minutes ahead or behind enqueues as the others do."""

import time

import pytest
from sqlalchemy import text

from rqjobs import enqueue, enqueue_many, queue_health
from rqjobs.broker import clock_skew as skew
from rqjobs.broker import job_writer
from rqjobs.broker.rq_schema import fetch_job
from rqjobs.database import get_engine
from rqjobs.database.schema import init_database
from rqjobs.outbox.relay import relay
from tests.support.processors import ProbeJob

JOB = ProbeJob(log="/dev/null")
real_time, real_time_ns = time.time, time.time_ns


def set_clock(monkeypatch, seconds):
    """Makes this process one whose clock is ahead; Redis is on another machine."""
    monkeypatch.setattr(job_writer, "_idle", [])
    monkeypatch.setattr(time, "time", lambda: real_time() + seconds)
    monkeypatch.setattr(time, "time_ns", lambda: real_time_ns() + seconds * 1_000_000_000)
    skew.forget()


@pytest.fixture(params=[600, -600])
def wrong_clock(request, monkeypatch, redis):
    set_clock(monkeypatch, request.param)


@pytest.fixture
def engine(database_url, redis):
    engine = get_engine()
    init_database(engine)
    return engine


def seconds_left(redis):
    second, micros = redis.time()
    return [due - second - micros / 1e6 for _, due in redis.zrange("rq:scheduled:probe", 0, -1, withscores=True)]


@pytest.mark.parametrize("count", [1, 3])
def test_a_delay_counts_by_redis_clock(redis, wrong_clock, count):
    jobs = enqueue_many([JOB] * count, delay="60s")
    assert [job.decode() for job in redis.zrange("rq:scheduled:probe", 0, -1)] == [job.id for job in jobs]
    for left in seconds_left(redis):
        assert 0 < left <= 60.01


def test_delayed_jobs_of_one_call_keep_their_order_with_any_ids(redis):
    ids = ["z", "a", "m", "b"]
    enqueue_many([(JOB, {"job_id": job_id}) for job_id in ids], delay="60s")
    assert [job.decode() for job in redis.zrange("rq:scheduled:probe", 0, -1)] == ids


def test_the_delay_of_an_outbox_row_counts_from_its_writing_by_the_database_s_clock(engine, redis, wrong_clock):
    with engine.begin() as connection:
        enqueue(JOB, delay="60s", outbox=connection)
        connection.execute(text("UPDATE rqjobs_outbox SET created_at = created_at - 40"))  # a relay that was away
        enqueue(JOB, delay="60s", outbox=connection)
        enqueue(JOB, delay="1s", outbox=connection)
        connection.execute(text("UPDATE rqjobs_outbox SET created_at = created_at - 30"))
    assert relay() == 3
    late, soon, latest = seconds_left(redis)
    assert late <= 0.1  # 70 s of 60 and 30 of 1 are over
    assert soon <= 0.1
    assert 0 < latest <= 30.1


def test_a_row_of_an_older_version_keeps_its_due_time(engine, redis):
    with engine.begin() as connection:
        enqueue(JOB, outbox=connection)
        connection.execute(text("UPDATE rqjobs_outbox SET due = :due"), {"due": time.time() + 100})
    assert relay() == 1
    assert 0 < seconds_left(redis)[0] <= 100.1


@pytest.mark.parametrize("count", [1, 3])
def test_the_wait_of_a_job_does_not_depend_on_the_clock_that_enqueued_it(redis, wrong_clock, monkeypatch, count):
    jobs = enqueue_many([JOB] * count)
    monkeypatch.undo()  # the one that looks has a right clock
    assert_none_waits_for_long()
    for job in jobs:
        assert abs(fetch_job(job.id, redis).enqueued_at.timestamp() - time.time()) < 60


def test_a_job_that_an_outbox_held_waits_from_then_on(engine, redis, wrong_clock, monkeypatch):
    with engine.begin() as connection:
        enqueue(JOB, outbox=connection)
    monkeypatch.undo()
    skew.forget()
    relay()
    assert_none_waits_for_long()


def test_health_is_the_same_on_machines_with_different_clocks(redis, monkeypatch):
    enqueue(JOB)
    set_clock(monkeypatch, 600)
    assert_none_waits_for_long()
    set_clock(monkeypatch, -600)
    assert_none_waits_for_long()


def assert_none_waits_for_long():
    (probe,) = [queue for queue in queue_health() if queue.name == "probe"]
    assert 0 <= probe.oldest.total_seconds() < 60
