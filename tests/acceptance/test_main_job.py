"""The main job as users see it: a webhook through Redis, a worker process and HTTP to a receiver that verifies it."""

import json
import re

import pytest
from standardwebhooks import Webhook

from rqjobs import JobFailed, enqueue_many, enqueue_webhook, wait_for_result
from rqjobs.config.settings import use_settings
from rqjobs.testing.sandbox.receiver import Receiver, signing_secret
from tests.support.processors import ProbeJob

ENGINES = ["threads", "rq"]


@pytest.fixture
def receiver(monkeypatch):
    with Receiver(signing_secret()) as started:
        monkeypatch.setenv("WEBHOOK_SIGNING_SECRET", started.secret)
        monkeypatch.setenv("WEBHOOK_ALLOW", "127.0.0.1")
        use_settings(None)
        yield started


def hook(receiver, path, **more):
    url = receiver.url + path
    return {"webhookId": "wh_1", "event": "qr.scanned", "url": url, "payload": {"code": "Ä1"}, **more}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_receiver_that_fails_twice_gets_it_after_2_and_4_seconds(workers, receiver, engine):
    workers.start("webhooks", "--engine", engine)
    job = enqueue_webhook(hook(receiver, "/flaky/2", headers={"X-API-Key": "key"}))
    assert wait_for_result(job, "60s")["status"] == 204
    first, second, third = receiver.received
    assert re.findall(r"retry in ([\d.]+) s", workers.logs()) == (["2.0", "4.0"] if engine == "threads" else [])
    assert second.at - first.at >= 2 - 1  # RQ's schedule knows whole seconds
    assert third.at - second.at >= 4 - 1
    assert {r.headers["webhook-id"] for r in receiver.received} == {job.id}
    assert len({r.body for r in receiver.received}) == 1
    for request in receiver.received:
        Webhook(receiver.secret).verify(request.body, request.headers)
        assert request.headers["x-api-key"] == "key"
    body = json.loads(third.body)
    assert (body["event"], body["payload"], body["webhookId"]) == ("qr.scanned", {"code": "Ä1"}, "wh_1")
    assert body["timestamp"]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_outcome_is_by_status(workers, receiver, engine):
    jobs = {status: enqueue_webhook(hook(receiver, f"/status/{status}"), attempts=2, backoff="fixed:1s")
            for status in (200, 301, 404, 410, 500)}  # fmt: skip
    workers.start("webhooks", "--engine", engine)
    assert wait_for_result(jobs[200], "60s")["status"] == 200
    for status, runs in {301: 1, 404: 1, 410: 1, 500: 2}.items():
        with pytest.raises(JobFailed, match=str(status)):
            wait_for_result(jobs[status], "60s")
        assert sum(r.path == f"/status/{status}" for r in receiver.received) == runs


@pytest.mark.parametrize("engine", ENGINES)
def test_loopback_is_refused_without_an_exemption(workers, receiver, engine):
    job = enqueue_webhook(hook(receiver, "/ok"))
    workers.start("webhooks", "--engine", engine, WEBHOOK_ALLOW="")
    with pytest.raises(JobFailed, match=r"127\.0\.0\.1"):
        wait_for_result(job, "60s")
    assert receiver.received == []


@pytest.mark.parametrize("engine", ["threads", pytest.param("rq", marks=pytest.mark.slow)])  # RQ forks 750 times
def test_600_failures_leave_500_and_150_successes_100(workers, redis, tmp_path, engine):
    enqueue_many([ProbeJob(log=str(tmp_path / "x"), do="permanent")] * 600)
    enqueue_many([ProbeJob(log=str(tmp_path / "x"))] * 150)
    assert workers.run("worker", "probe", "--burst", "--engine", engine, timeout=170).returncode == 0
    (health,) = (queue for queue in workers.json("health")["queues"] if queue["name"] == "probe")
    assert (health["failed"], health["failed_total"], health["completed"]) == (500, 600, 150)
    assert redis.zcard("rq:finished:probe") == 100
    assert len(list(redis.scan_iter("rq:job:*", count=1000))) == 600
    assert len(workers.json("failed", "list", "--limit", "1000")) == 500
