"""The transactional outbox: what a transaction wrote arrives once, whoever is killed in between."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, datetime

import pytest
from rq import Queue
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from rqjobs import WebhookJob, aenqueue_webhook, enqueue_many, enqueue_webhook
from rqjobs.broker import keys
from rqjobs.broker.connection import get_connection
from rqjobs.database import get_engine
from rqjobs.database.outbox import OutboxError
from rqjobs.database.schema import init_database
from rqjobs.outbox.relay import relay
from rqjobs.outbox.thread import Relay
from tests.support.workers import ROOT, eventually

JOB = WebhookJob(webhook_id="wh_1", event="booking.created", url="https://example.com", payload={"ü": 1})


@pytest.fixture
def engine(database_url, redis):
    engine = get_engine()
    init_database(engine)
    return engine


def waiting(redis):
    return Queue("webhooks", connection=redis).job_ids


def left(engine):
    with engine.connect() as connection:
        return connection.execute(text("SELECT count(*) FROM rqjobs_outbox")).scalar()


def test_a_committed_job_arrives_as_if_enqueued_directly(engine, redis):
    direct = enqueue_webhook(JOB, attempts=4, priority="low", job_id="direct")
    with Session(engine) as session, session.begin():
        job = enqueue_webhook(JOB, attempts=4, priority="low", job_id="moved", outbox=session)
        assert (job.id, job.origin) == ("moved", "webhooks:low")
        assert not redis.exists("rq:job:moved")
    assert relay() == 1
    one, other = redis.hgetall("rq:job:direct"), redis.hgetall("rq:job:moved")
    for fields in (one, other):
        del fields[b"created_at"]
        _time, fields[b"destination"] = fields[b"destination"].split(b"\n", 1)
    assert one == other
    assert waiting(redis) == []
    assert Queue("webhooks:low", connection=redis).job_ids == [direct.id, "moved"]
    assert (left(engine), redis.exists(keys.OUTBOX)) == (0, 0)
    assert relay() == 0


def test_a_rolled_back_job_never_does(engine, redis):
    with Session(engine) as session:
        enqueue_webhook(JOB, outbox=session)
        session.rollback()
    assert relay() == 0
    assert redis.keys("rq:job:*") == []


def test_many_in_order_and_delays_kept(engine, redis):
    with engine.begin() as connection:
        jobs = enqueue_many([JOB] * 450 + [(JOB, {"delay": "1h"})], outbox=connection)
        later = enqueue_webhook(JOB, at=datetime(2030, 1, 1, tzinfo=UTC), outbox=connection)
    assert relay() == 452
    assert waiting(redis) == [job.id for job in jobs[:450]]
    (late, due), (last, at) = redis.zrange("rq:scheduled:webhooks", 0, -1, withscores=True)
    assert (last.decode(), at) == (later.id, pytest.approx(datetime(2030, 1, 1, tzinfo=UTC).timestamp(), abs=0.001))
    assert late.decode() == jobs[-1].id
    assert due == pytest.approx(jobs[-1].created_at.timestamp() + 3600, abs=1)


def test_writing_needs_no_redis(engine, monkeypatch):
    monkeypatch.setattr("rqjobs.broker.connection.connect", None)
    with engine.begin() as connection:
        assert enqueue_webhook(JOB, outbox=connection).id


def test_killed_between_redis_and_the_delete_it_arrives_once(engine, redis):
    with engine.begin() as connection:
        job = enqueue_webhook(JOB, outbox=connection)
    program = """
import os, signal, sqlalchemy
import rqjobs.outbox.relay as outbox
outbox.delete = lambda *a: os.kill(os.getpid(), signal.SIGKILL)
outbox.relay()
"""
    died = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert died.returncode == -signal.SIGKILL
    assert (waiting(redis), left(engine), redis.zcard(keys.OUTBOX)) == ([job.id], 1, 1)
    redis.delete("rq:queue:webhooks", f"rq:job:{job.id}")  # done meanwhile, and no longer kept
    assert relay() == 1
    assert (waiting(redis), left(engine), redis.zcard(keys.OUTBOX)) == ([], 0, 0)


def test_killed_between_commit_and_relay_it_arrives_once(engine, redis):
    program = """
import os, signal
from rqjobs import enqueue_webhook
from rqjobs.database import get_engine
with get_engine().begin() as connection:
    enqueue_webhook({"webhookId": "w", "event": "e", "url": "https://example.com", "payload": {}}, job_id="one",
                    outbox=connection)
os.kill(os.getpid(), signal.SIGKILL)
"""
    died = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert died.returncode == -signal.SIGKILL
    assert redis.keys("rq:job:*") == []
    assert relay() == 1
    assert waiting(redis) == ["one"]


def test_relays_at_the_same_time_move_each_row_once(engine, redis):
    with engine.begin() as connection:
        jobs = enqueue_many([JOB] * 600, outbox=connection)
    client = get_connection()
    threads = [threading.Thread(target=relay, args=(client, engine)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    relay()
    assert sorted(waiting(redis)) == sorted(job.id for job in jobs)


def test_an_id_that_is_waiting_already_is_not_enqueued_twice(engine, redis):
    enqueue_webhook(JOB, job_id="a")
    with engine.begin() as connection:
        enqueue_webhook(JOB, job_id="a", outbox=connection)
    assert relay() == 1
    assert waiting(redis) == ["a"]


class OwnConnection(sqlite3.Connection):
    """As apps make one, to add a method or two."""


@pytest.mark.parametrize("kind", [sqlite3.Connection, OwnConnection])
def test_plain_connections_are_accepted_and_other_objects_refused(redis, tmp_path, kind):
    file = tmp_path / "rqjobs.db"
    with sqlite3.connect(file) as connection, pytest.raises(OutboxError, match="rqjobs db init"):
        enqueue_webhook(JOB, outbox=connection)
    connection.close()
    init_database(get_engine())
    connection = sqlite3.connect(file, factory=kind)
    with connection:
        job = enqueue_webhook(JOB, outbox=connection)
    connection.close()
    assert relay() == 1
    assert waiting(redis) == [job.id]
    with pytest.raises(OutboxError, match="a str is neither"):
        enqueue_webhook(JOB, outbox="session")


@pytest.mark.asyncio
async def test_an_async_session(redis, postgres_url):
    init_database(get_engine())
    engine = create_async_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
    async with AsyncSession(engine) as session, session.begin():
        job = await aenqueue_webhook(JOB, outbox=session)
    await engine.dispose()
    assert relay() == 1
    assert waiting(redis) == [job.id]


def test_a_worker_moves_it_by_itself(workers, engine):
    with engine.begin() as connection:
        enqueue_webhook(JOB, outbox=connection, job_id="moved", attempts=1)
    assert workers.json("outbox", "status")["waiting"] == 1
    assert workers.run("worker", "--burst", "probe").returncode == 0
    assert workers.json("outbox", "status")["waiting"] == 0
    assert workers.json("jobs", "show", "moved")["status"] == "queued"
    assert workers.run("outbox", "relay", "--once").stdout == "moved 0\n"


def test_the_relay_command_runs_when_workers_do_not_relay(workers, redis):
    engine = get_engine()
    init_database(engine)
    command = workers.command("outbox", "relay", RQJOBS_OUTBOX_EVERY="0")
    for job_id in ("first", "second"):  # the first may be moved by the look that it begins with
        with engine.begin() as connection:
            enqueue_webhook(JOB, outbox=connection, job_id=job_id)
        eventually(lambda job_id=job_id: redis.exists(f"rq:job:{job_id}"), timeout=20)
    assert command.poll() is None


@pytest.mark.parametrize("url", ["sqlite:///{}?timeout=30", "sqlite:///file:{}?uri=true"])
def test_a_worker_finds_the_outbox_with_any_options_in_the_url(redis, configure, tmp_path, url):
    configure(DATABASE_URL=url.format(tmp_path / "rqjobs.db"))
    engine = get_engine()
    init_database(engine)
    with engine.begin() as connection:
        job = enqueue_webhook(JOB, outbox=connection)
    Relay().tick()
    assert waiting(redis) == [job.id]


def test_a_relay_tries_again_soon_after_an_error(redis, caplog):
    engine = get_engine()
    init_database(engine)
    with engine.begin() as connection:
        job = enqueue_webhook(JOB, outbox=connection)
        connection.execute(text("ALTER TABLE rqjobs_outbox RENAME TO away"))
    relay_ = Relay()
    relay_.tick()
    assert "outbox not read" in caplog.text
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE away RENAME TO rqjobs_outbox"))

    def moved():
        relay_.tick()
        return waiting(redis) == [job.id]

    eventually(moved, timeout=15)  # RQJOBS_OUTBOX_EVERY is 1 s
