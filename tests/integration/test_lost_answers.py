"""Answers of Redis to an enqueue that are lost: what arrived is recognised, though it is done and deleted by then."""

import asyncio
import json
from collections import Counter

import pytest

from rqjobs import DuplicateJob, QRAnalyticsJob, aenqueue, enqueue, enqueue_many
from rqjobs.broker import keys
from rqjobs.broker.connection import close_connection, connect
from rqjobs.database import get_engine
from rqjobs.database.schema import init_database
from rqjobs.outbox.relay import relay
from tests.support.processors import ProbeJob
from tests.support.proxy import proxy_before
from tests.support.workers import eventually

JOB = QRAnalyticsJob(qr_code_id="q", event="scan", data={})
LISTS = ("rq:queue:qr-analytics", "rq:scheduled:qr-analytics")


@pytest.fixture
def proxy(redis, redis_url, configure):
    """REDIS_URL leads through it; each lost answer finds all jobs that wait done and deleted."""
    done: list[str] = []

    def finish_all():
        with redis.pipeline() as transaction:
            waiting, delayed, _ = transaction.lrange(LISTS[0], 0, -1).zrange(LISTS[1], 0, -1).delete(*LISTS).execute()
        for job in waiting + delayed:
            redis.delete(f"rq:job:{job.decode()}")
            done.append(job.decode())

    with proxy_before(redis_url) as proxy:
        configure(REDIS_URL=proxy.url)
        enqueue_many([JOB, JOB], delay="1h")  # scripts and connections are there
        enqueue(JOB)
        redis.flushdb()
        proxy.on_loss = finish_all
        proxy.done = done  # type: ignore[attr-defined]
        yield proxy
        close_connection()


def runs(proxy, redis):
    """How often each job would run: those that were done, and those that wait."""
    waiting = [job.decode() for job in redis.lrange(LISTS[0], 0, -1) + redis.zrange(LISTS[1], 0, -1)]
    return Counter(proxy.done + waiting)


@pytest.mark.parametrize("losses", [1, 2])
@pytest.mark.parametrize("options", [{}, {"delay": "1h"}, {"unique": True}, {"job_id": "mine"}])
def test_one_job(proxy, redis, options, losses):
    proxy.losses = losses
    job = enqueue(JOB, **options)
    assert proxy.losses == 0
    assert runs(proxy, redis) == {job.id: 1}


def test_one_job_by_a_client_of_the_app(proxy, redis):
    client = connect()
    enqueue(JOB, connection=client)
    redis.flushdb()
    proxy.losses = 1
    job = enqueue(JOB, connection=client)
    client.close()
    assert runs(proxy, redis) == {job.id: 1}


def test_one_job_of_a_coroutine(proxy, redis):
    proxy.losses = 1
    job = asyncio.run(aenqueue(JOB))
    assert runs(proxy, redis) == {job.id: 1}


@pytest.mark.parametrize("count", [3, 1200])
def test_many_jobs(proxy, redis, count):
    proxy.losses = 2
    jobs = enqueue_many([JOB] * count)
    assert proxy.losses == 0
    assert runs(proxy, redis) == {job.id: 1 for job in jobs}


def test_the_ids_that_were_refused_are_refused_again(proxy, redis):
    enqueue(JOB, job_id="there")
    proxy.losses = 1
    with pytest.raises(DuplicateJob) as caught:
        enqueue_many([(JOB, {"job_id": "there"}), (JOB, {"job_id": "new"}), (JOB, {"job_id": "new"})])
    assert caught.value.job_ids == ("there", "new")
    assert runs(proxy, redis) == {"there": 1, "new": 1}


def test_the_same_id_again_is_another_call(proxy, redis):
    for _ in range(3):
        proxy.losses = 1
        enqueue(JOB, job_id="again")
    assert runs(proxy, redis) == {"again": 3}


def test_the_relay_of_the_outbox(proxy, redis):
    engine = get_engine()
    init_database(engine)
    with engine.begin() as connection:
        jobs = enqueue_many([JOB, JOB, (JOB, {"delay": "1h"})], outbox=connection)
    proxy.losses = 1
    assert relay() == 3
    assert proxy.losses == 0
    assert runs(proxy, redis) == {job.id: 1 for job in jobs}


def test_receipts_do_not_grow_with_the_number_of_jobs(proxy, redis):
    for _ in range(50):
        enqueue(JOB)
        enqueue(JOB, delay="1h")
        enqueue_many([JOB, JOB])
    receipts = redis.keys(f"{keys.PREFIX}:sent:*")
    assert len(receipts) == 1
    assert 3000 < redis.ttl(receipts[0]) <= 3600


def test_workers_that_finish_jobs_at_once_run_none_twice(proxy, redis, workers, redis_url, tmp_path):
    proxy.on_loss = lambda: eventually(lambda: not redis.llen("rq:queue:probe") and not redis.zcard("rq:wip:probe"))
    workers.start("probe", REDIS_URL=redis_url, RQJOBS_KEEP_COMPLETED="1", RQJOBS_OUTBOX_EVERY="0")
    log = tmp_path / "runs.log"
    ids = []
    for number in range(60):
        proxy.losses = number % 3 == 0
        ids.append(enqueue(ProbeJob(log=str(log))).id)
    assert proxy.lost == 20
    eventually(lambda: not redis.llen("rq:queue:probe") and not redis.zcard("rq:wip:probe"))
    assert Counter(json.loads(line)["id"] for line in log.read_text().splitlines()) == dict.fromkeys(ids, 1)
