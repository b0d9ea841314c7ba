"""Two tenants on one host: what a path answers opens no breaker for the other; a dead host opens it for both."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
import redis as redis_py

from rqjobs.attempt import Attempt, Hold
from rqjobs.config.settings import get_settings, use_settings
from rqjobs.errors import RQJobsError
from rqjobs.jobs import WebhookJob
from rqjobs.processors import webhook
from rqjobs.processors.webhook import breaker
from rqjobs.webhooks import add_endpoint
from tests.support.receiver import Answer, Received, Receiver, receiving
from tests.support.workers import eventually


@pytest.fixture
def receiver(redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    for name, value in {
        "ALLOW": "127.0.0.1",
        "TIMEOUT": "500ms",
        "BREAKER_AFTER": "0s",
        "BREAKER_FAILURES": "3",
        "BREAKER_PAUSE": "60s",
    }.items():
        monkeypatch.setenv(f"WEBHOOK_{name}", value)
    use_settings(None)
    with receiving() as running:
        yield running


def attempt(job_id: str) -> Attempt:
    return Attempt(job_id=job_id, queue="webhooks", of=3, timeout=timedelta(seconds=30))


def deliver(job: WebhookJob, count: int) -> None:
    async def all_of_them() -> None:
        for number in range(count):
            try:
                await webhook.deliver(job, attempt(f"d{number}"))
            except RQJobsError as error:
                assert "answered 50" in str(error) or "imed out" in str(error) or "connect" in str(error)  # noqa: PT017

    asyncio.run(all_of_them())


def hold(job: WebhookJob) -> Hold | None:
    (found,) = webhook.admit([(job, attempt(os.urandom(8).hex()))])
    return found


def jobs(url: str, *, registered: bool, ids: str = "wh_{}") -> tuple[WebhookJob, WebhookJob]:
    """A delivery to tenant A's path and one to tenant B's, on one host."""
    if registered:
        for name in ("evil", "good"):
            add_endpoint(name, f"{url}/{name}")
    evil, good = (
        WebhookJob(
            webhook_id=ids.format(name),
            event="e",
            url=f"{url}/{name}",
            payload={},
            endpoint=name if registered else None,
        )
        for name in ("evil", "good")
    )
    return evil, good


def refuses(request: Received) -> Answer:
    return Answer(503 if request.path == "/evil" else 200)


def hangs(request: Received) -> Answer:
    return Answer(delay=3 if request.path == "/evil" else 0)


@pytest.mark.parametrize(("registered", "ids"), [(True, "wh_{}"), (False, "wh_{}"), (False, "the same")])
@pytest.mark.parametrize("answer", [refuses, hangs])
def test_a_path_that_does_not_answer_holds_up_no_other_path(
    receiver: Receiver, answer: Callable[[Received], Answer], registered: bool, ids: str
) -> None:
    receiver.answer = answer
    evil, good = jobs(receiver.url("").rstrip("/"), registered=registered, ids=ids)
    deliver(evil, 5)
    assert hold(evil) is not None
    assert hold(good) is None
    deliver(good, 1)
    assert len([request for request in receiver.requests if request.path == "/good"]) == 1


def test_many_silent_paths_of_one_subscription_are_its_hosts_fault(receiver: Receiver) -> None:
    receiver.answer = lambda request: Answer(503)
    url = receiver.url("").rstrip("/")
    for number in range(3):
        deliver(WebhookJob(webhook_id="wh_1", event="e", url=f"{url}/orders/{number}", payload={}), 2)
    assert hold(WebhookJob(webhook_id="wh_1", event="e", url=f"{url}/orders/new", payload={})) is not None
    assert hold(WebhookJob(webhook_id="wh_2", event="e", url=f"{url}/orders/new", payload={})) is None


def test_a_host_without_a_connection_holds_up_all_its_paths_until_one_is_made(receiver: Receiver) -> None:
    with receiving() as gone:
        url = gone.url("").rstrip("/")
    evil, good = jobs(url, registered=False)
    deliver(evil, 3)
    assert hold(evil) is not None
    assert hold(good) is not None
    (state,) = breaker.breakers()
    assert (state.destination, state.state) == (url, "open")


def test_a_connection_to_an_origin_closes_its_breaker_with_any_response(receiver: Receiver) -> None:
    receiver.answer = refuses
    evil, good = jobs(receiver.url("").rstrip("/"), registered=False)
    origin = receiver.url("").rstrip("/")
    for _ in range(3):
        breaker.report_failure(origin, 1.0, probe=False, settings=get_settings())
    assert hold(good) is not None
    deliver(evil, 1)
    eventually(lambda: hold(good) is None)  # questions to the breaker are gathered for some milliseconds
