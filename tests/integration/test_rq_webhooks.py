"""RQ's ``webhooks`` field describes HTTP requests to any address. No worker of ours sends one."""

from __future__ import annotations

import json

import pytest
from rq import Queue
from rq.serializers import JSONSerializer
from rq.webhook import Webhook

from rqjobs import enqueue
from rqjobs.worker.rq_compat import RQCompatWorker
from rqjobs.worker.run import run_worker
from tests.support.receiver import Receiver
from tests.support.tasks import Task

STATUSES = ("finished", "failed")


@pytest.fixture
def receiver():
    receiver = Receiver().start()
    yield receiver
    receiver.stop()


@pytest.fixture
def forged(receiver):
    """The field as somebody with access to Redis could write it."""
    methods = ("GET", "POST")
    return [Webhook(receiver.url(), status, method=method) for status in STATUSES for method in methods]


@pytest.mark.parametrize("engine", ["threads", "rq"])
def test_no_request_leaves_for_a_forged_field(workers, redis, receiver, forged, engine):
    field = json.dumps([webhook.to_dict() for webhook in forged])
    jobs = [enqueue(Task()), enqueue(Task(do="dead"))]
    plain = Queue("tasks", connection=redis, serializer=JSONSerializer)
    jobs += [plain.enqueue("os.system", "true"), plain.enqueue("os.getpid", webhooks=forged)]
    parent = plain.enqueue("rqjobs.worker.entry.perform", args=("tasks", {}))
    jobs += [parent, plain.enqueue("rqjobs.worker.entry.perform", args=("tasks", {}), depends_on=parent)]
    for job in jobs:
        redis.hset(job.key, "webhooks", field)
    done = workers.run("worker", "tasks", "--burst", "--engine", engine, RQJOBS_IMPORT="tests.support.tasks")
    assert done.returncode == 0, done.stderr
    statuses = [redis.hget(job.key, "status") for job in jobs]
    assert statuses == [b"finished", b"failed", b"failed", b"failed", b"finished", b"finished"]
    assert receiver.connections == 0


def test_a_forged_field_does_not_send_a_job_the_slow_way(redis, monkeypatch, forged):
    monkeypatch.setenv("RQJOBS_IMPORT", "tests.support.tasks")
    monkeypatch.setattr(RQCompatWorker, "run_rq_compat", lambda *_: pytest.fail("RQ's own methods ran it"))
    job = enqueue(Task())
    redis.hset(job.key, "webhooks", json.dumps([webhook.to_dict() for webhook in forged]))
    run_worker(["tasks"], burst=True)
    assert redis.hget(job.key, "status") == b"finished"
