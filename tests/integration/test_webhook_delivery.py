"""The webhook processor against a real receiver on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from standardwebhooks import Webhook

from rqjobs.attempt import Attempt
from rqjobs.config.settings import use_settings
from rqjobs.errors import PermanentFailure, RetryLater
from rqjobs.jobs import WebhookJob
from rqjobs.processors import webhook
from rqjobs.processors.webhook.client import Client
from rqjobs.processors.webhook.request import build
from rqjobs.processors.webhook.transfer import DeliveryFailed
from rqjobs.security.ssrf import Guard, Target
from rqjobs.worker.runners.coroutines import _new_loop as the_workers_loop
from tests.support.receiver import Answer, Receiver, receiving

SECRETS = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_" + "QUJD" * 8)


@pytest.fixture
def receiver(redis: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    configure(monkeypatch, WEBHOOK_ALLOW="127.0.0.1", WEBHOOK_SIGNING_SECRET=" ".join(SECRETS))
    with receiving() as running:
        yield running


def configure(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    use_settings(None)


def job(url: str, **fields: object) -> WebhookJob:
    return WebhookJob(**{"webhook_id": "wh_1", "event": "qr.scanned", "url": url, "payload": {"n": "\u00fc"}} | fields)


def deliver(job: WebhookJob, attempt: Attempt) -> dict[str, object]:
    return asyncio.run(webhook.deliver(job, attempt))


def attempt(number: int = 1, seconds: float = 30) -> Attempt:
    return Attempt(job_id="job-1", queue="webhooks", number=number, of=3, timeout=timedelta(seconds=seconds))


def test_the_request(receiver: Receiver) -> None:
    result = deliver(job(receiver.url("/hook?a=1"), headers={"X-API-Key": "k", "X-Empty": ""}), attempt(2))
    assert result["status"] == 200
    (request,) = receiver.requests
    body = json.loads(request.body)
    assert (body["event"], body["payload"], body["webhookId"]) == ("qr.scanned", {"n": "\u00fc"}, "wh_1")
    assert request.path == "/hook?a=1"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["x-api-key"] == "k"
    assert request.headers["x-empty"] == ""
    assert request.headers["webhook-attempt"] == "2"
    assert request.webhook_id == "job-1"
    assert not any(name.startswith("x-webhook") for name in request.headers)
    for secret in SECRETS:  # rotation: the receiver may still have the old one
        Webhook(secret).verify(request.body.decode(), request.headers)


def test_the_body_and_id_stay_the_same_over_attempts(receiver: Receiver) -> None:
    moment = datetime(2026, 11, 23, 22, 35, 8, 123456, UTC)

    async def twice() -> None:
        for number in (1, 2):
            run = Attempt(job_id="j", queue="webhooks", number=number, enqueued_at=moment)
            await webhook.deliver(job(receiver.url()), run)

    asyncio.run(twice())
    first, second = receiver.requests
    assert first.body == second.body
    assert json.loads(first.body)["timestamp"] == "2026-11-23T22:35:08.123Z"
    assert first.webhook_id == second.webhook_id == "j"
    assert receiver.connections == 1


@pytest.mark.parametrize("forged", ["x\r\nHost: internal", "x y", "x\n", "", "x" * 129, "\u00fc"])
def test_a_forged_id_reaches_no_header(receiver: Receiver, forged: str) -> None:
    with pytest.raises(PermanentFailure, match="job's id"):
        deliver(job(receiver.url()), Attempt(job_id=forged, queue="webhooks"))
    assert receiver.requests == []


def test_legacy_headers_are_a_switch(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, WEBHOOK_LEGACY_SECRET="their secret")
    deliver(job(receiver.url(), webhook_id="bäckerei"), attempt(3))
    request = receiver.requests[0]
    digest = hmac.new(b"their secret", request.body, hashlib.sha256).hexdigest()
    assert request.headers["x-webhook-signature"] == digest
    assert request.headers["x-webhook-event"] == "qr.scanned"
    assert request.headers["x-webhook-id"].encode("latin-1").decode() == "bäckerei"
    assert request.headers["x-webhook-attempt"] == "3"
    assert request.headers["x-webhook-timestamp"] == json.loads(request.body)["timestamp"]


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_2xx_is_done(receiver: Receiver, status: int) -> None:
    receiver.answer = lambda request: Answer(status, b"")
    assert deliver(job(receiver.url()), attempt())["status"] == status


@pytest.mark.parametrize("status", [300, 301, 302, 307, 308, 400, 401, 403, 404, 405, 409, 410, 413, 422])
def test_permanent_failures_are_dead_at_once(receiver: Receiver, status: int) -> None:
    receiver.answer = lambda request: Answer(status, headers={"location": receiver.url("/other")})
    with pytest.raises(PermanentFailure, match=str(status)):
        deliver(job(receiver.url()), attempt())
    assert [request.path for request in receiver.requests] == ["/hook"]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_temporary_failures_are_retried(receiver: Receiver, status: int) -> None:
    receiver.answer = lambda request: Answer(status)
    with pytest.raises(DeliveryFailed, match=str(status)):
        deliver(job(receiver.url()), attempt())


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_sets_the_time_of_the_next_attempt(receiver: Receiver, status: int) -> None:
    def after(value: str) -> float:
        receiver.answer = lambda request: Answer(status, headers={"Retry-After": value})
        with pytest.raises(RetryLater) as later:
            deliver(job(receiver.url()), attempt())
        return later.value.after.total_seconds()

    assert after("3") == 3
    assert 55 < after(format_datetime(datetime.now(UTC) + timedelta(minutes=1), usegmt=True)) <= 60
    assert after(str(365 * 86400)) == 86400
    assert after("9" * 400) == 86400


@pytest.mark.parametrize("value", ["0", "soon", "-5", "Wed, 21 Oct 2015 07:28:00 GMT", "\u00b2", "1e9", "Mon, 99 Foo"])
def test_a_useless_retry_after_means_the_backoff(receiver: Receiver, value: str) -> None:
    receiver.answer = lambda request: Answer(503, headers={"Retry-After": value})
    with pytest.raises(DeliveryFailed):
        deliver(job(receiver.url()), attempt())


def test_the_deadline_is_total(receiver: Receiver) -> None:
    receiver.answer = lambda request: Answer(delay=60)
    started = time.monotonic()
    with pytest.raises(DeliveryFailed) as failed:
        deliver(job(receiver.url()), attempt(seconds=2))
    assert failed.value.kind == "timeout"
    assert time.monotonic() - started < 30


def test_a_refused_target_is_dead_and_the_error_names_the_rule(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    configure(monkeypatch, WEBHOOK_ALLOW="")
    for url, rule in [(receiver.url(), "port"), ("http://2130706433/", "loopback"), ("http://[::1]/", "loopback")]:
        with pytest.raises(PermanentFailure, match=f"'{rule}'"):
            deliver(job(url), attempt())
    assert receiver.requests == []


def test_a_closed_port_is_a_connection_error(receiver: Receiver) -> None:
    with pytest.raises(DeliveryFailed) as failed:
        deliver(job("http://127.0.0.1:1/"), attempt())
    assert failed.value.kind == "connection"


def test_a_response_is_capped(receiver: Receiver) -> None:
    receiver.answer = lambda request: Answer(200, b"x" * 5_000_000)
    assert deliver(job(receiver.url()), attempt())["status"] == 200


def test_without_a_secret_webhooks_are_unsigned_with_one_warning(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    configure(monkeypatch, WEBHOOK_SIGNING_SECRET="")
    for _ in range(2):
        deliver(job(receiver.url()), attempt())
    assert all("webhook-signature" not in request.headers for request in receiver.requests)
    assert [record.message for record in caplog.records].count("webhooks are sent unsigned") == 1


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, the_workers_loop])
def test_silent_receivers_time_out_and_the_others_never_notice(receiver: Receiver, loop: Callable[[], Any]) -> None:
    answers: list[float] = []
    silent: list[float] = []

    async def one(client: Client, target: Target, seconds: float, took: list[float]) -> None:
        started = time.monotonic()
        message = build(job(target.url), attempt(), keys=[], legacy_key=None, now=0)
        with contextlib.suppress(DeliveryFailed):
            await client.post(target, message, seconds)
        took.append(time.monotonic() - started)

    async def all_of_them() -> None:
        guard = Guard.build(["127.0.0.1"])
        client = Client(guard)
        good, bad = (guard.check_url(receiver.url(path)) for path in ("/good", "/silent"))
        tasks = []
        for number in range(300):  # connections come and go all the time, and their numbers with them
            tasks.append(asyncio.create_task(one(client, good, 30, answers)))
            tasks.append(asyncio.create_task(one(client, bad, 0.3 + number % 7 / 10, silent)))
            await asyncio.sleep(0.005)
        await asyncio.gather(*tasks)
        client.close()

    receiver.answer = lambda request: Answer(delay=60 if request.path == "/silent" else 0)
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(all_of_them())
    assert [request.path for request in receiver.requests].count("/good") == 300
    assert len(answers) == len(silent) == 300
    assert max(answers) < 15  # one whose connection is not watched any more waits for its thirty seconds
    assert max(silent) < 10
