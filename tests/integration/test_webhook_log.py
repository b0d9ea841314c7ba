"""The delivery log and the endpoints' health, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from rqjobs.attempt import Attempt
from rqjobs.config.settings import use_settings
from rqjobs.database import get_engine, webhook_deliveries, webhook_endpoints
from rqjobs.database.schema import init_database
from rqjobs.database.webhook_deliveries import Delivery, Filter, find, purge, replayable, write
from rqjobs.database.webhook_endpoints import (
    EndpointExists,
    UnknownEndpoint,
    add_endpoint,
    find_endpoints,
    list_endpoints,
    make_secret,
    rotate_secret,
    set_enabled,
)
from rqjobs.database.webhook_health import Health
from rqjobs.database.webhook_tables import endpoint_key, endpoints
from rqjobs.errors import PermanentFailure
from rqjobs.jobs import WebhookJob
from rqjobs.processors import webhook
from rqjobs.processors.webhook import delivery_log as worker_log
from rqjobs.processors.webhook import endpoint_cache as worker_endpoints
from rqjobs.security.signing import InvalidSignature, verify
from tests.support.receiver import Answer, Receiver, receiving
from tests.support.workers import eventually


@pytest.fixture
def receiver(redis: object, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setenv("WEBHOOK_ALLOW", "127.0.0.1")
    use_settings(None)
    init_database(get_engine())
    with receiving() as running:
        yield running


def job(url: str, endpoint: str | None = None) -> WebhookJob:
    return WebhookJob(webhook_id="wh_1", event="qr.scanned", url=url, payload={"n": 1}, endpoint=endpoint)


def deliver(work: WebhookJob, job_id: str, number: int = 1, of: int = 3) -> object:
    return asyncio.run(webhook.deliver(work, Attempt(job_id=job_id, queue="webhooks", number=number, of=of)))


def test_every_attempt_is_in_the_log(receiver: Receiver) -> None:
    receiver.answer = lambda request: Answer(503, b"\xff\x00" + "ü".encode() * 3000)
    for number in (1, 2, 3):
        with pytest.raises(Exception, match="503"):
            deliver(job(receiver.url()), "job-1", number)
    receiver.answer = lambda request: Answer(201, b"made")
    deliver(job(receiver.url()), "job-2")
    with pytest.raises(PermanentFailure):
        deliver(job("http://10.0.0.1/"), "job-3")
    refused, done, *failed = find(get_engine(), Filter(), 10)
    assert (done.job_id, done.status, done.outcome, done.error, done.response) == ("job-2", 201, "done", None, "made")
    assert 0 < done.duration_ms < 5000
    assert abs(done.at.timestamp() - time.time()) < 30
    assert [(row.attempt, row.outcome) for row in failed] == [(3, "dead"), (2, "retry"), (1, "retry")]
    assert all(len(row.response or "") == 1000 for row in failed)
    assert failed[0].error == "the endpoint answered 503"
    assert (refused.status, refused.outcome) == (None, "dead")
    assert "'private'" in (refused.error or "")
    assert [row.job is not None for row in failed] == [False, False, True]


def test_the_delivery_log_does_not_show_addresses_of_internal_names(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WEBHOOK_ALLOW", "10.0.0.1")
    use_settings(None)
    with pytest.raises(PermanentFailure, match="loopback") as raised:
        deliver(job("http://localhost/"), "one")
    (row,) = find(get_engine(), Filter(), 10)
    own = re.compile(r"127\.0\.0\.1|::1")
    assert not own.search(f"{row.error} {raised.value}")
    assert own.search(repr([vars(record) for record in caplog.records]))  # our own log shows it


def test_replayable_returns_failed_deliveries_with_their_jobs(receiver: Receiver) -> None:
    receiver.answer = lambda request: Answer(500 if request.webhook_id in ("a", "b") else 200)
    for job_id in ("a", "b", "c"):
        with pytest.raises(Exception, match="500") if job_id != "c" else pytest.MonkeyPatch.context():
            deliver(job(receiver.url()), job_id, of=1)
    receiver.answer = lambda request: Answer()
    deliver(job(receiver.url()), "b", 2)
    engine = get_engine()
    assert [job_id for job_id, _ in replayable(engine, Filter(outcome="dead"))] == ["a"]
    assert [job_id for job_id, _ in replayable(engine, Filter(), delivered_too=True)] == ["a", "b", "c"]
    assert list(replayable(engine, Filter(endpoint="other"))) == []
    ((_, stored),) = replayable(engine, Filter(job_id="a"))
    assert WebhookJob.parse(stored) == job(receiver.url())


def test_old_attempts_are_deleted(receiver: Receiver) -> None:
    engine = get_engine()
    now = int(time.time() * 1000)
    rows = [Delivery(f"j{n}", "e", "x", 1, now - n * 86_400_000, 1.0, 200, "done", None, None, None) for n in range(10)]
    write(engine, rows, [], timedelta(days=5))
    assert purge(engine, datetime.now(UTC) - timedelta(days=6.5)) == 3
    assert len(find(engine, Filter(), 100)) == 7


def test_410_disables_an_endpoint_and_calls_the_hook(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(worker_endpoints, "_hooks", [])
    webhook.on_endpoint_disabled(lambda name, reason: told.append((name, reason)))
    receiver.answer = lambda request: Answer(410)
    with pytest.raises(PermanentFailure, match="410"):
        deliver(job(receiver.url()), "one")
    assert told == [(receiver.url(), "it answered 410: gone for good")]
    use_settings(None)  # another process, whose cache is empty
    with pytest.raises(PermanentFailure, match="disabled"):
        deliver(job(receiver.url()), "two")
    assert len(receiver.requests) == 1
    assert set_enabled(get_engine(), receiver.url(), reason=None) == [receiver.url()]
    use_settings(None)
    receiver.answer = lambda request: Answer()
    deliver(job(receiver.url()), "two")


def test_a_long_failure_disables_an_endpoint_and_a_success_resets_it(receiver: Receiver) -> None:
    engine, url = get_engine(), "https://example.com/hook"
    day = 86_400_000

    def seen(at: int, succeeded: bool) -> list[str]:
        return write(engine, [], [Health(url, url, succeeded, at, at, False)], timedelta(days=5))

    assert seen(1 * day, True) == []
    assert list_endpoints(engine) == []
    assert seen(2 * day, False) == []
    assert seen(6 * day, False) == []
    assert seen(6 * day + 1, True) == []
    assert seen(8 * day, False) == []
    assert seen(12 * day, False) == []
    assert seen(13 * day, False) == [url]
    assert seen(14 * day, False) == []
    (endpoint,) = list_endpoints(engine)
    assert endpoint.reason == "every delivery has failed since 1970-01-09 00:00 UTC"


def test_an_endpoint_has_secrets_of_its_own(receiver: Receiver) -> None:
    engine = get_engine()
    _, first = add_endpoint(engine, "shop", receiver.url(), events=["qr.*"])
    deliver(job("https://moved.example/", "shop"), "one")  # the endpoint's present URL is used
    second = rotate_secret(engine, "shop")
    use_settings(None)
    deliver(job("https://moved.example/", "shop"), "two")
    add_endpoint(engine, "shop", receiver.url(), events=["*"], replace=True)  # a change of events is no rotation
    deliver(job("https://moved.example/", "shop"), "three")
    rotate_secret(engine, "shop", keep_previous=timedelta(0))
    use_settings(None)
    deliver(job(receiver.url(), "shop"), "four")
    one, two, three, four = receiver.requests
    for request, secret in [(one, first), (two, first), (two, second), (three, first), (three, second)]:
        verify(secret, request.headers, request.body, now=time.time())
    assert len(four.headers["webhook-signature"].split()) == 1
    assert first not in repr(find_endpoints(engine, ["shop"]))
    with pytest.raises(PermanentFailure, match="not registered"):
        deliver(job(receiver.url(), "nobody"), "five")
    with pytest.raises(UnknownEndpoint):
        rotate_secret(engine, "nobody")


def test_secrets_of_earlier_rotations_still_sign(receiver: Receiver) -> None:
    """A new secret was lost, say; receivers still verify with the first."""
    engine = get_engine()
    secrets = [add_endpoint(engine, "shop", receiver.url())[1], *(rotate_secret(engine, "shop") for _ in range(3))]
    deliver(job(receiver.url(), "shop"), "one")
    (request,) = receiver.requests
    for secret in secrets:
        verify(secret, request.headers, request.body, now=time.time())


def test_a_rotated_secret_ends_when_it_was_to_end(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, now = get_engine(), time.time()
    moment = [now]
    monkeypatch.setattr(webhook_endpoints, "_now_ms", lambda: int(moment[0] * 1000))
    _, first = add_endpoint(engine, "shop", receiver.url())
    second = rotate_secret(engine, "shop", keep_previous=timedelta(hours=24))
    moment[0] = now + 20 * 3600
    third = rotate_secret(engine, "shop", keep_previous=timedelta(hours=24))

    def signing() -> tuple[str, ...]:
        return find_endpoints(engine, ["shop"])["shop"].secrets

    assert signing() == (third, second, first)
    moment[0] = now + 25 * 3600
    assert signing() == (third, second)
    fourth = rotate_secret(engine, "shop", keep_previous=timedelta(hours=1))  # ends the others as soon
    moment[0] = now + 26.5 * 3600
    assert signing() == (fourth,)


def test_secrets_that_an_older_rqjobs_rotated_sign_until_their_end(receiver: Receiver) -> None:
    engine, soon = get_engine(), int(time.time() * 1000) + 60_000
    add_endpoint(engine, "shop", receiver.url())
    kept = [make_secret(), make_secret()]
    with engine.begin() as connection:
        change = {"previous_secret": " ".join(kept), "previous_until_ms": soon}
        connection.execute(update(endpoints).values(change))
    third = rotate_secret(engine, "shop")
    assert find_endpoints(engine, ["shop"])["shop"].secrets[0] == third
    assert find_endpoints(engine, ["shop"])["shop"].secrets[2:] == tuple(kept)


def test_a_request_carries_five_signatures_at_most(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBHOOK_SIGNING_SECRET", " ".join(make_secret() for _ in range(8)))
    use_settings(None)
    engine = get_engine()
    add_endpoint(engine, "shop", receiver.url())
    secrets = [rotate_secret(engine, "shop") for _ in range(7)]
    deliver(job(receiver.url(), "shop"), "one")
    deliver(job(receiver.url()), "two")
    one, two = receiver.requests
    assert [len(request.headers["webhook-signature"].split()) for request in (one, two)] == [5, 5]
    for secret in secrets[-5:]:
        verify(secret, one.headers, one.body, now=time.time())


def test_a_url_is_not_signed_with_the_secret_of_the_endpoint_registered_with_it(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    apps = make_secret()
    monkeypatch.setenv("WEBHOOK_SIGNING_SECRET", apps)
    use_settings(None)
    _, theirs = add_endpoint(get_engine(), "victim", receiver.url())
    deliver(job(receiver.url()), "one")
    (request,) = receiver.requests
    verify(apps, request.headers, request.body, now=time.time())
    with pytest.raises(InvalidSignature):
        verify(theirs, request.headers, request.body, now=time.time())


@pytest.mark.parametrize("status", [500, 410])
def test_responses_to_a_plain_url_do_not_change_a_registered_endpoint(receiver: Receiver, status: int) -> None:
    engine, url = get_engine(), receiver.url()
    add_endpoint(engine, "victim", url)
    receiver.answer = lambda request: Answer(status)
    with pytest.raises(Exception, match=str(status)):
        deliver(job(url), "one")
    states = {each.name: each for each in list_endpoints(engine)}
    assert (states["victim"].enabled, states["victim"].failing_since) == (True, None)
    assert states[url].enabled == (status == 500)
    receiver.answer = lambda request: Answer(200)
    use_settings(None)
    deliver(job(url, "victim"), "two")


def test_a_registered_name_is_not_taken_over(receiver: Receiver) -> None:
    engine = get_engine()
    _, secret = add_endpoint(engine, "shop", receiver.url(), events=["booking.*"])
    with pytest.raises(EndpointExists, match="replace=True"):
        add_endpoint(engine, "shop", "https://stolen.example/")
    (endpoint,) = list_endpoints(engine)
    assert (endpoint.url, endpoint.secrets) == (receiver.url(), (secret,))


@pytest.mark.parametrize("status", [500, 410])
def test_an_endpoint_that_is_registered_after_its_url_has_failed(receiver: Receiver, status: int) -> None:
    engine, url = get_engine(), receiver.url()
    receiver.answer = lambda request: Answer(status)
    with pytest.raises(Exception, match=str(status)):
        deliver(job(url), "one")
    assert [each.name for each in list_endpoints(engine)] == [url]
    _, secret = add_endpoint(engine, "shop", url)
    use_settings(None)
    receiver.answer = lambda request: Answer(200)
    deliver(job(url, "shop"), "two")
    verify(secret, receiver.requests[-1].headers, receiver.requests[-1].body, now=time.time())
    assert {each.name: each.enabled for each in list_endpoints(engine)} == {"shop": True, url: status == 500}


def test_a_change_of_the_url_keeps_the_rest(receiver: Receiver) -> None:
    engine = get_engine()
    _, secret = add_endpoint(engine, "shop", receiver.url(), events=["booking.*"])
    changed, shown = add_endpoint(engine, "shop", "https://moved.example/", replace=True)
    assert (changed.url, changed.events, changed.secrets) == ("https://moved.example/", ("booking.*",), (secret,))
    assert shown is None  # a secret is shown once


def test_failed_deliveries_of_a_disabled_endpoint_are_found_by_its_name(receiver: Receiver) -> None:
    engine = get_engine()
    add_endpoint(engine, "shop", receiver.url())
    set_enabled(engine, "shop", reason="by hand")
    with pytest.raises(PermanentFailure, match="disabled"):
        deliver(job(receiver.url(), "shop"), "one")
    assert [job_id for job_id, _ in replayable(engine, Filter(endpoint="shop"))] == ["one"]


def test_our_own_errors_are_in_the_log(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise LookupError("no such thing")

    monkeypatch.setattr(sys.modules["rqjobs.processors.webhook.processor"], "build", fail)
    with pytest.raises(LookupError):
        deliver(job(receiver.url()), "one")
    (row,) = find(get_engine(), Filter(), 10)
    assert (row.job_id, row.outcome, row.error) == ("one", "retry", "LookupError: no such thing")


def test_the_log_shows_no_token_of_a_url(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    receiver.answer = lambda request: Answer(410)
    with pytest.raises(PermanentFailure):
        deliver(job(receiver.url("/hook?token=t-123")), "one")
    eventually(lambda: "endpoint disabled" in caplog.text)
    assert "t-123" not in repr([vars(record) for record in caplog.records])


def test_a_long_url_still_has_a_key(receiver: Receiver) -> None:
    url = receiver.url("/" + "\u00fc" * 1500)
    receiver.answer = lambda request: Answer(410)
    with pytest.raises(PermanentFailure):
        deliver(job(url), "long")
    (endpoint,) = list_endpoints(get_engine())
    assert endpoint.url == url
    assert len(endpoint_key(url)) <= 255
    assert set_enabled(get_engine(), url, reason=None)


def test_unwritten_attempts_are_written_later(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_log, "_EVERY_WHILE_DOWN", 0.2)
    real, failures = worker_log.write, [OperationalError("INSERT", {}, Exception("the database is away"))] * 2

    def write_later(*args: Any) -> list[str]:
        if failures:
            raise failures.pop()
        return real(*args)

    monkeypatch.setattr(worker_log, "write", write_later)

    async def two() -> None:
        for number in range(2):
            await webhook.deliver(job(receiver.url()), Attempt(job_id=f"j{number}", queue="webhooks"))
            await asyncio.sleep(0.6)
        await asyncio.to_thread(eventually, lambda: len(logged()) == 2)

    def logged() -> list[str]:
        return [row.job_id for row in find(get_engine(), Filter(), 10)]

    asyncio.run(two())
    assert logged() == ["j1", "j0"]


def test_searches_without_an_index_read_the_newest_attempts(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log of millions that holds none is not read to its end."""
    monkeypatch.setattr(webhook_deliveries, "LOOKED_THROUGH", 3)
    init_database(get_engine())
    rows = [
        Delivery(f"j{n}", "e", "qr.scanned", 1, 1000 + n, 1.0, 200, outcome, None, None, None)
        for n, outcome in enumerate(("done", "dead", "dead", "done", "dead", "retry"))
    ]
    write(get_engine(), rows, [], timedelta(days=5))
    for wanted, found in (
        (Filter(outcome="done"), ["j3"]),
        (Filter(event="qr.scanned"), ["j5", "j4", "j3"]),
        (Filter(event="other"), []),
        (Filter(outcome="dead"), ["j4", "j2", "j1"]),
        (Filter(), ["j5", "j4", "j3", "j2", "j1", "j0"]),
    ):
        assert [row.job_id for row in find(get_engine(), wanted, 10)] == found
