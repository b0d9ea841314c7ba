"""The email processor against SendGrid's and Resend's APIs, as their documentation says them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from rqjobs.broker import keys
from rqjobs.config.addresses import parse_address
from rqjobs.errors import DependencyUnavailable, PermanentFailure, RetryLater
from rqjobs.jobs import EmailJob
from rqjobs.processors.email import admit, send
from rqjobs.processors.email.backends import http, smtp
from rqjobs.processors.email.outcome import NotSent, UnknownOutcome
from rqjobs.testing.sandbox.mail import MailAPI, Script
from tests.support.clock import RedisClock
from tests.support.emails import WHEN, attempt, bury, job
from tests.support.smtp import smtp_server

Configure = Callable[..., None]
SENDGRID_ERROR = {"errors": [{"message": "does not fit", "field": "x", "help": None}]}


@pytest.fixture
def configure(configure: Configure, redis, tmp_path: Path) -> Iterator[Configure]:
    configure(
        EMAIL_FROM="Shop <shop@shop.example>",
        EMAIL_ATTACHMENTS=str(tmp_path),
        SENDGRID_API_KEY="test-key",
        RESEND_API_KEY="test-key",
        RESEND_RATE="1000/s",
    )
    yield configure
    if http._kept.session is not None:
        http._kept.session.close()


@pytest.fixture
def api(configure: Configure) -> Iterator[MailAPI]:
    with MailAPI() as running:
        configure(SENDGRID_API_URL=running.url, RESEND_API_URL=running.url)
        yield running


@pytest.fixture(params=["sendgrid", "resend"])
def backend(request: pytest.FixtureRequest, configure: Configure) -> str:
    configure(EMAIL_BACKEND=request.param)
    return str(request.param)


@pytest.fixture
def sendgrid(api: MailAPI, configure: Configure) -> MailAPI:
    configure(EMAIL_BACKEND="sendgrid")
    return api


@pytest.fixture
def resend(api: MailAPI, configure: Configure) -> MailAPI:
    configure(EMAIL_BACKEND="resend")
    return api


def full(tmp_path: Path) -> EmailJob:
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    return job(
        to=["Ada, Countess <ada@a.example>", "bob@b\u00fccher.example"],
        cc="cy@c.example", bcc=["di@d.example", "ada@a.example"],
        reply_to="Help <help@shop.example>", headers={"List-Unsubscribe": "<https://shop.example/u>"}, tags=["new"],
        attachments=[str(tmp_path / "a.pdf")], sender="\u00c4nne <anne@shop.example>", subject="\U0001f389 Hi",
    )  # fmt: skip


def test_sendgrids_request(sendgrid: MailAPI, tmp_path: Path) -> None:
    result = send(full(tmp_path), attempt())
    (sent,) = sendgrid.sent
    assert sent.headers["authorization"] == "Bearer test-key"
    people = sent.payload["personalizations"][0]
    assert people == {
        "to": [{"email": "ada@a.example", "name": "Ada Countess"}, {"email": "bob@xn--bcher-kva.example"}],
        "cc": [{"email": "cy@c.example"}],
        "bcc": [{"email": "di@d.example"}],
    }
    assert sent.payload["from"] == {"email": "anne@shop.example", "name": "\u00c4nne"}
    assert sent.payload["reply_to"] == {"email": "help@shop.example", "name": "Help"}
    assert [part["type"] for part in sent.payload["content"]] == ["text/plain", "text/html"]
    assert sent.payload["headers"] == {
        "Message-ID": "<job-1@shop.example>",
        "List-Unsubscribe": "<https://shop.example/u>",
    }
    assert sent.payload["categories"] == ["new"]
    assert sent.payload["attachments"] == [
        {"content": "JVBERg==", "type": "application/pdf", "filename": "a.pdf", "disposition": "attachment"}
    ]
    assert sent.payload["subject"] == "\U0001f389 Hi"
    assert (result["provider_id"], result["accepted"], result["backend"]) == (sent.id, 4, "sendgrid")
    assert result["message_id"] == "<job-1@shop.example>"


def test_sendgrid_gets_an_address_once_and_names_without_separators(sendgrid: MailAPI) -> None:
    result = send(
        job(to=["Lovelace, Ada; Countess <ada@a.example>", "ADA@A.example"], cc="Ada@a.example", bcc="bob@b.example"),
        attempt(),
    )
    assert sendgrid.sent[0].payload["personalizations"] == [
        {"to": [{"email": "ada@a.example", "name": "Lovelace Ada Countess"}], "bcc": [{"email": "bob@b.example"}]}
    ]
    assert result["accepted"] == 4


def test_resends_request(resend: MailAPI, tmp_path: Path) -> None:
    result = send(full(tmp_path), attempt())
    (sent,) = resend.sent
    assert sent.headers["authorization"] == "Bearer test-key"
    assert sent.headers["idempotency-key"] == "job-1"
    assert sent.payload["to"] == ['"Ada, Countess" <ada@a.example>', "bob@xn--bcher-kva.example"]
    assert (sent.payload["from"], sent.payload["reply_to"]) == (
        "\u00c4nne <anne@shop.example>",
        "Help <help@shop.example>",
    )
    assert sent.payload["tags"] == [{"name": "new", "value": "true"}]
    assert sent.payload["headers"]["Message-ID"] == "<job-1@shop.example>"
    assert sent.payload["attachments"][0]["content"] == "JVBERg=="
    assert sent.payload["text"].startswith("Shop\n")
    assert (result["provider_id"], result["accepted"]) == (sent.id, 4)


def test_resend_is_given_no_encoded_words(resend: MailAPI) -> None:
    word = "=?utf-8?q?Boss_=3Cboss=40e.example=3E=2C?="
    send(job(to=f"{word} <ada@a.example>"), attempt())
    assert resend.sent[0].payload["to"] == ['"= ?utf-8?q?Boss_=3Cboss=40e.example=3E=2C?=" <ada@a.example>']


@pytest.mark.parametrize(
    "case",
    [
        ({"to": ["ada@a.example", "bob@b.example"]}, {"to": ["bob@b.example"]}),
        ({"cc": "bob@b.example"}, {"to": ["bob@b.example"]}),
        ({"bcc": "bob@b.example"}, {"to": ["shop@shop.example"], "bcc": ["bob@b.example"]}),
    ],
)
def test_another_backend_sends_only_to_the_remaining_recipients(
    api: MailAPI, backend: str, configure: Configure, tmp_path: Path, case: tuple[dict, dict]
) -> None:
    fields, people = case
    with smtp_server(tmp_path, starttls=False) as server:
        server.rcpt["bob@b.example"] = "450 4.2.0 busy"
        configure(EMAIL_BACKEND="smtp", SMTP_URL=f"smtp://localhost:{server.port}")
        with pytest.raises(NotSent):
            send(job(**fields), attempt())
        smtp._kept().close()
    configure(EMAIL_BACKEND=backend)
    assert send(job(**fields), attempt(number=2))["accepted"] == 2
    payload = api.sent[0].payload
    shown = payload if backend == "resend" else payload["personalizations"][0]
    assert people == {
        name: [parse_address(box if isinstance(box, str) else box["email"]).address for box in shown[name]]
        for name in ("to", "cc", "bcc")
        if name in shown
    }


def test_an_image_of_the_html(api: MailAPI, backend: str, tmp_path: Path) -> None:
    (tmp_path / "logo.png").write_bytes(b"png")
    send(job(attachments=[{"source": str(tmp_path / "logo.png"), "content_id": "logo"}]), attempt())
    (sent,) = api.sent[0].payload["attachments"]
    assert (sent["content_id"], sent.get("disposition")) == ("logo", "inline" if backend == "sendgrid" else None)


@pytest.mark.parametrize("status", [400, 404, 405, 413, 302])
def test_sendgrids_permanent_answers(sendgrid: MailAPI, status: int) -> None:
    sendgrid.script.append(Script(status, SENDGRID_ERROR))
    with pytest.raises(PermanentFailure, match=f"SendGrid answered {status}: does not fit"):
        send(job(), attempt())


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_sendgrid_refuses_holds_the_queue(sendgrid: MailAPI, redis, status: int) -> None:
    sendgrid.script.append(Script(status, SENDGRID_ERROR))
    with pytest.raises(DependencyUnavailable, match=f"SendGrid answered {status}: does not fit"):
        send(job(), attempt())
    assert not redis.exists(keys.email_send_record("job-1")), "certainly not sent leaves no record"


def test_a_sender_of_the_mails_own_is_its_own_fault(api: MailAPI, configure: Configure) -> None:
    api.script.append(Script(403, {"errors": [{"message": "not verified", "field": "from"}]}))
    configure(EMAIL_BACKEND="sendgrid")
    with pytest.raises(PermanentFailure, match="403"):
        send(job(sender="me@elsewhere.example"), attempt())
    configure(EMAIL_BACKEND="resend")
    for fields, expected in (({"sender": "me@elsewhere.example"}, PermanentFailure), ({}, DependencyUnavailable)):
        error = {"name": "validation_error", "message": "The elsewhere.example domain is not verified."}
        api.script.append(Script(403, error))
        with pytest.raises(expected, match="403"):
            send(job(**fields), attempt())


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (408, NotSent),
        (500, DependencyUnavailable),
        (503, DependencyUnavailable),
        (502, UnknownOutcome),
        (504, UnknownOutcome),
    ],
)
def test_sendgrids_transient_answers(sendgrid: MailAPI, status: int, expected: type[Exception]) -> None:
    sendgrid.script.append(Script(status, b"<html>"))
    with pytest.raises(expected, match=str(status)):
        send(job(), attempt())
    send(job(), attempt(number=2))
    assert len(sendgrid.sent) == 1


RESEND_ANSWERS = [
    (400, "invalid_idempotency_key", PermanentFailure),
    (401, "missing_api_key", DependencyUnavailable),
    (401, "restricted_api_key", DependencyUnavailable),
    (403, "invalid_api_key", DependencyUnavailable),
    (403, "validation_error", PermanentFailure),
    (404, "not_found", PermanentFailure),
    (405, "method_not_allowed", PermanentFailure),
    (409, "invalid_idempotent_request", PermanentFailure),
    (422, "missing_required_field", PermanentFailure),
    (429, "monthly_quota_exceeded", DependencyUnavailable),
    (409, "concurrent_idempotent_requests", RetryLater),
    (409, "resource_locked", RetryLater),
    (429, "rate_limit_exceeded", RetryLater),
    (429, "daily_quota_exceeded", RetryLater),
    (500, "application_error", DependencyUnavailable),
    (502, "", DependencyUnavailable),
    (503, "service_unavailable", DependencyUnavailable),
]


@pytest.mark.parametrize(("status", "name", "expected"), RESEND_ANSWERS)
def test_resends_answers(resend: MailAPI, status: int, name: str, expected: type[Exception]) -> None:
    resend.script.append(
        Script(status, {"statusCode": status, "message": "because", "name": name}, {"retry-after": "7"})
    )
    with pytest.raises(expected, match=f"Resend answered {status} {name}: because") as error:
        send(job(), attempt())
    if isinstance(error.value, RetryLater):
        assert timedelta(seconds=6) < error.value.after < timedelta(seconds=8)
        assert error.value.counts is (status == 409), "a limit of the provider burns no attempt of the mail"


@pytest.mark.parametrize(("header", "least", "most"), [
    ("30", 30, 30), ("", 10, 10), ("soon", 10, 10), ("0", 1, 1), ("99999999999", 86400, 86400),
    ("a date", 60, 100),
])  # fmt: skip
def test_retry_after_is_honoured_within_reason(sendgrid: MailAPI, header: str, least: float, most: float) -> None:
    if header == "a date":
        header = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    sendgrid.script.append(Script(429, SENDGRID_ERROR, {"retry-after": header} if header else {}))
    with pytest.raises(RetryLater) as error:
        send(job(), attempt())
    assert least <= error.value.after.total_seconds() <= most
    assert not error.value.counts


def test_a_wrong_key_is_reported_without_showing_it(api: MailAPI, backend: str, configure: Configure) -> None:
    configure(SENDGRID_API_KEY="SG.hunter2", RESEND_API_KEY="re_hunter2")
    with pytest.raises(DependencyUnavailable) as error:
        send(job(), attempt())
    assert "hunter2" not in str(error.value)
    configure(SENDGRID_API_KEY="", RESEND_API_KEY="")
    with pytest.raises(DependencyUnavailable, match=f"set {backend.upper()}_API_KEY"):
        send(job(), attempt())


def test_an_api_that_does_not_answer_is_unavailable(backend: str, configure: Configure) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        configure(SENDGRID_API_URL=url, RESEND_API_URL=url, EMAIL_UNKNOWN_OUTCOME="hold")
        with pytest.raises(DependencyUnavailable, match="cannot be reached"):
            send(job(), attempt())
        sock.listen()
        with pytest.raises(DependencyUnavailable if backend == "resend" else PermanentFailure, match="did not answer"):
            send(job(), attempt(seconds=2))


@pytest.mark.parametrize("accepted", [True, False])
def test_a_broken_answer_doubles_nothing_with_resend(resend: MailAPI, accepted: bool, configure: Configure) -> None:
    configure(EMAIL_UNKNOWN_OUTCOME="hold")  # not even asked: the key makes the repeat safe
    resend.script.append(Script(accept=accepted, hang_up=True))
    with pytest.raises(DependencyUnavailable):
        send(job(), attempt())
    send(job(), attempt(number=2))
    assert len(resend.sent) == 1


def test_after_a_day_resends_key_covers_nothing(resend: MailAPI, configure: Configure, monkeypatch) -> None:
    configure(EMAIL_UNKNOWN_OUTCOME="hold")
    resend.script.append(Script(accept=True, hang_up=True))
    with pytest.raises(DependencyUnavailable):
        send(job(), attempt())
    now = time.time()
    monkeypatch.setattr("rqjobs.processors.email.backends.resend.time.time", lambda: now + 23 * 3600 + 1)
    with pytest.raises(PermanentFailure, match="may have been sent"):
        send(job(), attempt(number=2))


@pytest.mark.parametrize("policy", ["retry", "hold"])
def test_a_broken_answer_with_sendgrid(sendgrid: MailAPI, policy: str, configure: Configure) -> None:
    configure(EMAIL_UNKNOWN_OUTCOME=policy)
    sendgrid.script.append(Script(accept=True, hang_up=True))
    with pytest.raises(UnknownOutcome if policy == "retry" else PermanentFailure) as failure:
        send(job(), attempt())
    assert len(sendgrid.sent) == 1
    bury(failure.value)
    send(job(), attempt(number=2))
    assert len(sendgrid.sent) == 2
    assert len({sent.payload["headers"]["Message-ID"] for sent in sendgrid.sent}) == 1


def test_an_id_used_again_gets_another_key(resend: MailAPI) -> None:
    send(job(), attempt())
    send(job(subject="Another"), attempt(enqueued_at=WHEN + timedelta(minutes=1)))
    keys = [sent.headers["idempotency-key"] for sent in resend.sent]
    assert keys[0] == "job-1"
    assert len(set(keys)) == 2


def test_resends_rate_is_kept_before_it_is_broken(resend: MailAPI, configure: Configure) -> None:
    configure(RESEND_RATE="2/s")
    before = datetime.now(UTC)
    first, *others = admit([(job(), attempt(f"job-{number}")) for number in range(5)])
    moments = [hold.until if hold else before for hold in others]
    assert first is None
    assert moments == sorted(moments)
    assert before + timedelta(seconds=1) < moments[-1] < datetime.now(UTC) + timedelta(seconds=3)
    start = time.monotonic()
    for number in range(4):
        send(job(), attempt(f"job-{number}"))
    assert time.monotonic() - start > 0.9


def test_less_than_one_a_second(resend: MailAPI, configure: Configure, redis, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = RedisClock(redis, monkeypatch)
    configure(RESEND_RATE="0.1/s")
    send(job(), attempt())
    clock.pass_(9)
    with pytest.raises(RetryLater, match="rate limit"):
        send(job(), attempt("job-2"))
    clock.pass_(1.1)
    assert send(job(), attempt("job-2"))["accepted"] == 1


def test_after_a_429_everybody_waits(resend: MailAPI, redis, monkeypatch) -> None:
    clock = RedisClock(redis, monkeypatch)
    resend.script.append(Script(429, {"name": "rate_limit_exceeded", "message": "slow"}, {"retry-after": "5"}))
    with pytest.raises(RetryLater):
        send(job(), attempt())
    clock.pass_(1)
    with pytest.raises(RetryLater, match="rate limit") as error:
        send(job(), attempt("job-2"))
    assert error.value.after == timedelta(seconds=4)
    assert not error.value.counts
    assert resend.requests == 1
    assert admit([(job(), attempt("job-3"))])[0] is not None


def test_a_session_is_kept_and_redirects_are_not_followed(sendgrid: MailAPI) -> None:
    for number in range(3):
        send(job(), attempt(f"job-{number}"))
    sendgrid.script.append(Script(307, None, {"location": "http://127.0.0.1:1/"}))
    with pytest.raises(PermanentFailure, match="307"):
        send(job(), attempt("job-x"))
    assert len(sendgrid.sent) == 3


def test_two_runs_at_once(resend: MailAPI) -> None:
    entered, go = threading.Event(), threading.Event()
    resend.script.append(Script(accept=True, body={"id": "1"}, before=lambda: (entered.set(), go.wait(60))))
    results = []
    first = threading.Thread(target=lambda: results.append(send(job(), attempt())))
    first.start()
    assert entered.wait(60)
    send(job(), attempt(number=2))  # its lease was lost, another worker took the job: the key makes it one mail
    go.set()
    first.join()
    assert len(resend.sent) == 1
    assert len(results) == 1
