"""The email processor against a real SMTP server."""

from __future__ import annotations

import email
import email.policy
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
import redis as redis_py

from rqjobs.broker import keys
from rqjobs.broker.connection import close_connection, get_connection
from rqjobs.database.suppressions import lift, list_suppressions, suppress
from rqjobs.errors import DependencyUnavailable, PermanentFailure, RetryLater
from rqjobs.mail.smtp import Server
from rqjobs.processors.email import send
from rqjobs.processors.email.backends import smtp as backend
from rqjobs.processors.email.outcome import NotSent, UnknownOutcome
from tests.chaos.proxy import Proxy
from tests.chaos.stores import running_redis
from tests.support.emails import WHEN, attempt, bury, job
from tests.support.smtp import PASSWORD, USER, MailServer, smtp_server
from tests.support.workers import eventually

Configure = Callable[..., None]


@pytest.fixture
def configure(configure: Configure, redis, tmp_path: Path) -> Iterator[Configure]:
    configure(EMAIL_BACKEND="smtp", EMAIL_FROM="Shop <shop@shop.example>", EMAIL_ATTACHMENTS=str(tmp_path))
    yield configure
    backend._kept().close()


@pytest.fixture
def server(tmp_path: Path, configure: Configure) -> Iterator[MailServer]:
    with smtp_server(tmp_path) as running:
        configure(SMTP_URL=f"smtp://localhost:{running.port}?ca={running.ca_file}")
        yield running


def test_a_mail_over_starttls(server: MailServer) -> None:
    result = send(job(cc=["Bob <bob@b.example>"], bcc="eve@e.example", reply_to="help@shop.example", tags=["new"],
                      headers={"List-Unsubscribe": "<https://shop.example/u>"}), attempt())  # fmt: skip
    (mail,) = server.mails
    assert mail.tls
    assert mail.sender == "shop@shop.example"
    assert mail.to == ["ada@a.example", "bob@b.example", "eve@e.example"]
    message = mail.message
    assert result["message_id"] == message["Message-ID"] == "<job-1@shop.example>"
    assert (message["From"], message["To"], message["Cc"]) == (
        "Shop <shop@shop.example>",
        "ada@a.example",
        "Bob <bob@b.example>",
    )
    assert (message["Reply-To"], message["X-Tags"]) == ("help@shop.example", "new")
    assert message["List-Unsubscribe"] == "<https://shop.example/u>"
    assert message["Bcc"] is None
    assert b"eve@" not in mail.raw
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    assert "Hi Ada," in message.get_body(("plain",)).get_content()
    assert "<h1" in message.get_body(("html",)).get_content()
    assert result | {"accepted": 3, "refused": {}, "suppressed": {}, "backend": "smtp"} == result


@pytest.mark.filterwarnings("ignore:Requiring AUTH")  # aiosmtpd does not see that its socket is encrypted
@pytest.mark.parametrize("implicit", [False, True])
def test_login_only_over_tls(tmp_path: Path, configure: Configure, implicit: bool) -> None:
    with smtp_server(tmp_path, auth=True, implicit=implicit) as server:
        scheme, login = "smtps" if implicit else "smtp", f"{USER}:{quote(PASSWORD, safe='')}"
        configure(SMTP_URL=f"{scheme}://{login}@localhost:{server.port}?ca={server.ca_file}")
        send(job(), attempt())
        assert (server.mails[0].user, server.mails[0].tls) == (USER, not implicit)
        configure(SMTP_URL=f"{scheme}://{USER}:hunter2@localhost:{server.port}?ca={server.ca_file}")
        with pytest.raises(DependencyUnavailable, match="535") as error:
            send(job(), attempt("job-2"))
        assert "hunter2" not in str(error.value)
        configure(SMTP_URL=f"{scheme}://localhost:{server.port}?ca={server.ca_file}")
        with pytest.raises(DependencyUnavailable, match="530"):
            send(job(), attempt("job-3"))


@pytest.mark.filterwarnings("ignore:Requiring AUTH")
@pytest.mark.parametrize("off", [["LOGIN"], ["PLAIN"], ["LOGIN", "PLAIN"]])
def test_a_login_beyond_ascii(tmp_path: Path, configure: Configure, off: list[str]) -> None:
    login = ("j\u00fcrgen", "\u5bc6\u7801 \u20ac")
    with smtp_server(tmp_path, auth=True, login=login, mechanisms_off=off) as server:
        where = f"localhost:{server.port}?ca={server.ca_file}"
        configure(SMTP_URL=f"smtp://{quote(login[0])}:{quote(login[1])}@{where}")
        if len(off) == 2:
            with pytest.raises(DependencyUnavailable, match="AUTH"):
                send(job(), attempt())
            return
        send(job(), attempt())
        assert server.mails[0].user == login[0]
        configure(SMTP_URL=f"smtp://{quote(login[0])}:{quote(USER)}@{where}")
        with pytest.raises(DependencyUnavailable, match="535"):
            send(job(), attempt("job-2"))


def test_a_password_is_never_sent_in_the_clear(tmp_path: Path, configure: Configure) -> None:
    with smtp_server(tmp_path, starttls=False) as server:
        for url in (f"smtp://u:p@localhost:{server.port}", f"smtp://u:p@localhost:{server.port}?tls=off"):
            configure(SMTP_URL=url)
            with pytest.raises(DependencyUnavailable, match="never sent in the clear"):
                send(job(), attempt())
        configure(SMTP_URL=f"smtp://localhost:{server.port}")
        send(job(), attempt())  # on loopback nobody listens in
        assert not server.mails[0].tls


def test_a_server_elsewhere_must_offer_starttls(tmp_path: Path, configure: Configure, monkeypatch) -> None:
    monkeypatch.setattr(Server, "on_loopback", False)  # the only server that a test has is on loopback
    with smtp_server(tmp_path, starttls=False) as server:
        configure(SMTP_URL=f"smtp://localhost:{server.port}")
        with pytest.raises(DependencyUnavailable, match="STARTTLS"):
            send(job(), attempt())
    assert not server.mails


@pytest.mark.parametrize("host", ["localhost", "other.example"])
def test_certificates_are_verified(tmp_path: Path, configure: Configure, host: str) -> None:
    with smtp_server(tmp_path, host=host) as server:
        trust = f"?ca={server.ca_file}" if host != "localhost" else ""
        configure(SMTP_URL=f"smtp://localhost:{server.port}{trust}")
        with pytest.raises(DependencyUnavailable, match="certificate cannot be trusted"):
            send(job(), attempt())
    assert not server.mails


def test_a_thread_keeps_its_connection(server: MailServer) -> None:
    for number in range(5):
        send(job(), attempt(f"job-{number}"))
    assert (len(server.mails), server.connections) == (5, 1)
    other = threading.Thread(target=send, args=(job(), attempt("job-x")))
    other.start()
    other.join()
    assert (len(server.mails), server.connections) == (6, 2)
    assert backend._kept().smtp is not None
    backend._kept().smtp.sock.shutdown(socket.SHUT_RDWR)  # as if the server had closed the idle connection
    send(job(), attempt("job-y"))
    assert (len(server.mails), server.connections) == (7, 3)


def test_nothing_is_sent_and_no_attempt_used_up_while_redis_is_full(server: MailServer, redis) -> None:
    redis.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(RetryLater, match="Redis does not take it now") as later:
            send(job(), attempt())
    finally:
        redis.config_set("maxmemory", "0")
    assert (later.value.counts, server.mails) == (False, [])
    assert send(job(), attempt())["accepted"] == 1


@pytest.mark.parametrize("reply", ["421 4.3.2 shutting down", "450 4.2.0 busy", "451 4.3.0 local error",
                                   "452 4.2.2 full", "454 4.7.0 later", "550 4.7.1 try again", "450 odd"])  # fmt: skip
@pytest.mark.parametrize("step", ["mail", "rcpt", "data"])
def test_transient_replies_are_tried_again(server: MailServer, redis, reply: str, step: str) -> None:
    if step == "mail":
        server.mail_from = reply
    elif step == "rcpt":
        server.rcpt["ada@a.example"] = reply
    else:
        server.data.append(reply)
    away = reply.startswith("421")  # it shuts down: no mail would be taken
    with pytest.raises(DependencyUnavailable if away else NotSent, match=reply[:3]):
        send(job(), attempt())
    assert not redis.exists(keys.email_send_record("job-1")), "certainly not sent leaves no record"
    server.mail_from, server.rcpt = None, {}
    assert send(job(), attempt(number=2))["accepted"] == 1
    assert len(server.mails) == 1


@pytest.mark.parametrize("code", [500, 501, 502, 503, 504, 530, 534, 535, 550, 551, 552, 553, 554])
@pytest.mark.parametrize("step", ["mail", "rcpt", "data"])
def test_permanent_replies_end_the_mail(server: MailServer, code: int, step: str) -> None:
    reply = f"{code} 5.7.0 no\r\n"[:-2]
    expected: type[Exception] = PermanentFailure
    if step == "mail":
        server.mail_from = reply
    elif step == "rcpt":
        server.rcpt["ada@a.example"] = reply
        expected = NotSent if code == 552 else PermanentFailure  # RFC 5321, 4.5.3.1.10
    else:
        server.data.append(reply)
    if code == 530 or (code in (534, 535) and step != "rcpt"):  # it wants a login, whatever the mail
        expected = DependencyUnavailable
    with pytest.raises(expected, match=f"{code} 5.7.0 no"):
        send(job(), attempt())
    assert not server.mails


def test_greylisting_is_waited_for(server: MailServer) -> None:
    server.rcpt["ada@a.example"] = "450 4.2.0 Greylisted, see http://postgrey.example"
    with pytest.raises(RetryLater) as error:
        send(job(), attempt())
    assert (error.value.after, error.value.counts) == (timedelta(minutes=5), True)
    with pytest.raises(RetryLater, match="1 accepted, not yet accepted ada") as error:
        send(job(cc="bob@b.example"), attempt("job-2"))
    assert (error.value.after, error.value.counts) == (timedelta(minutes=5), True)


def test_partial_refusals_are_reported_and_not_sent_again(server: MailServer) -> None:
    server.rcpt = {"gone@a.example": "550 5.1.1 no such user", "full@a.example": "452 4.2.2 mailbox full"}
    mail = job(to=["ada@a.example", "gone@a.example", "full@a.example"])
    with pytest.raises(NotSent, match=r"1 accepted, not yet accepted full@a.example: 452"):
        send(mail, attempt())
    with pytest.raises(NotSent, match="452"):
        send(mail, attempt(number=2))
    del server.rcpt["full@a.example"]
    result = send(mail, attempt(number=3))
    assert [mail.to for mail in server.mails] == [["ada@a.example"], ["full@a.example"]]
    assert len({mail.message["Message-ID"] for mail in server.mails}) == 1
    assert result["accepted"] == 2
    assert result["refused"] == {"gone@a.example": "550 5.1.1 no such user"}
    assert send(mail, attempt(number=3)) == result
    assert len(server.mails) == 2


def test_the_other_recipients_get_the_mail_when_the_first_does_not_exist(server: MailServer) -> None:
    server.rcpt = {"ada@a.example": "550 5.1.1 no such user", "bob@b.example": "450 4.2.0 busy"}
    mail = job(cc="bob@b.example")
    with pytest.raises(NotSent, match=r"0 accepted, not yet accepted bob@b\.example"):
        send(mail, attempt())
    del server.rcpt["bob@b.example"]
    result = send(mail, attempt(number=2))
    assert (result["accepted"], result["suppressed"], list(result["refused"])) == (1, {}, ["ada@a.example"])
    assert [(mail.to, mail.message["To"]) for mail in server.mails] == [(["bob@b.example"], "ada@a.example")]


def test_remaining_recipients_may_be_suppressed_before_the_retry(server: MailServer) -> None:
    server.rcpt["bob@b.example"] = "450 4.2.0 busy"
    mail = job(to=["ada@a.example", "bob@b.example"])
    with pytest.raises(NotSent):
        send(mail, attempt())
    suppress({"bob@b.example": "complaint"})
    with pytest.raises(PermanentFailure, match=r"nothing is sent to bob@b\.example: complaint"):
        send(mail, attempt(number=2))
    lift(["bob@b.example"])
    server.rcpt.clear()
    assert send(mail, attempt())["accepted"] == 2


def test_no_attempt_is_counted_when_the_server_closes_during_a_mail(server: MailServer) -> None:
    server.rcpt["ada@example.com"] = "drop"
    with pytest.raises(DependencyUnavailable, match="broke before the mail was complete"):
        send(job(to="ada@example.com"), attempt())
    server.rcpt.clear()
    assert send(job(to="ada@example.com"), attempt())["accepted"] == 1


def test_an_outcome_is_written_when_redis_is_back(server: MailServer, tmp_path: Path, configure: Configure) -> None:
    """Redis is away from the moment at which the mail arrives, for longer than redis-py tries again."""
    configure(EMAIL_UNKNOWN_OUTCOME="hold")
    with running_redis(tmp_path / "own-redis") as own:
        configure(REDIS_URL=own.url)
        server.pause = 4.0  # the answer to the dot is late, so Redis is away before the outcome is known

        def take_away() -> None:
            eventually(lambda: server.mails)
            own.kill()
            time.sleep(2.5)
            own.start()

        thread = threading.Thread(target=take_away)
        thread.start()
        try:
            send(job(), attempt())
        finally:
            thread.join()
        assert send(job(), attempt())["accepted"] == 1
        assert len(server.mails) == 1
        close_connection()


def test_a_lost_reply_to_the_send_record_holds_no_mail(
    server: MailServer, tmp_path: Path, configure: Configure
) -> None:
    """The record is in Redis, its reply is lost, and Redis is away for longer than redis-py tries again."""
    configure(EMAIL_UNKNOWN_OUTCOME="hold")
    with running_redis(tmp_path / "own-redis") as own, Proxy(own.port) as proxy:
        configure(REDIS_URL=proxy.url)
        proxy.delay = 0.3  # so that the reply is on its way when the connection is cut

        def take_away() -> None:
            eventually(lambda: own.client.exists(keys.email_send_record("job-1")), every=0.01)
            proxy.cut_for(2.5)

        thread = threading.Thread(target=take_away)
        thread.start()
        try:
            assert send(job(), attempt())["accepted"] == 1
        finally:
            thread.join()
            close_connection()
    assert len(server.mails) == 1


def test_a_second_run_sends_nothing(server: MailServer) -> None:
    first = send(job(), attempt())
    assert send(job(), attempt(number=2)) == first
    assert len(server.mails) == 1


def test_an_id_used_again_is_another_mail(server: MailServer) -> None:
    send(job(), attempt())
    later = send(job(), attempt(enqueued_at=WHEN + timedelta(hours=1)))
    again = send(job(), attempt(number=2, enqueued_at=WHEN + timedelta(hours=1)))
    assert later == again
    assert len({mail.message["Message-ID"] for mail in server.mails}) == len(server.mails) == 2


@pytest.mark.parametrize("accident", ["drop", "lose"])
def test_an_unknown_outcome_is_retried_by_default(server: MailServer, accident: str) -> None:
    server.data.append(accident)
    with pytest.raises(UnknownOutcome):
        send(job(), attempt())
    send(job(), attempt(number=2))
    assert len(server.mails) == (2 if accident == "drop" else 1)
    assert len({mail.message["Message-ID"] for mail in server.mails}) == 1


def test_an_unknown_outcome_is_held_for_a_person(server: MailServer, configure: Configure) -> None:
    configure(EMAIL_UNKNOWN_OUTCOME="hold")
    server.data.append("drop")
    with pytest.raises(PermanentFailure, match=r"may have been sent.*requeue") as failure:
        send(job(), attempt())
    assert len(server.mails) == 1
    bury(failure.value)
    server.data.append("421 later")
    with pytest.raises(DependencyUnavailable):
        send(job(), attempt())  # the person has looked, and requeued it
    send(job(), attempt(number=2))
    assert len(server.mails) == 2


def test_a_send_record_is_recognised_when_the_response_to_its_write_was_lost(
    server: MailServer, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(EMAIL_UNKNOWN_OUTCOME="hold")
    send(job(), attempt("job-0"))  # from here on the only "OK" is that to the record
    kind = get_connection().connection_pool.connection_class
    real, lost = kind.read_response, [True]

    def lose_the_first_ok(self: object, *args: object, **kwargs: object) -> object:
        answer = real(self, *args, **kwargs)
        if lost and answer in (b"OK", "OK"):
            lost.clear()
            raise redis_py.exceptions.ConnectionError("the answer was lost")
        return answer

    monkeypatch.setattr(kind, "read_response", lose_the_first_ok)
    assert send(job(), attempt())["accepted"] == 1
    assert not lost
    assert len(server.mails) == 2


def test_a_worker_that_died_while_sending(server: MailServer, configure: Configure, monkeypatch) -> None:
    class Killed(BaseException):
        """Stands for kill -9: nothing that handles exceptions sees it."""

    def die(*_args: object) -> None:
        raise Killed

    configure(EMAIL_UNKNOWN_OUTCOME="hold")
    with monkeypatch.context() as patch:
        patch.setattr("rqjobs.processors.email.processor._settle", die)
        with pytest.raises(Killed):
            send(job(), attempt())
    for number in (2, 3):  # the second was killed as well, before its job was dead
        with pytest.raises(PermanentFailure, match="rqjobs failed requeue job-1") as failure:
            send(job(), attempt(number=number))
    assert len(server.mails) == 1
    bury(failure.value)
    with monkeypatch.context() as patch:
        patch.setattr("rqjobs.processors.email.processor._settle", die)
        with pytest.raises(Killed):
            send(job(), attempt())
    with pytest.raises(PermanentFailure, match="may have been sent"):  # of the second handing over nobody was told
        send(job(), attempt(number=2))
    assert len(server.mails) == 2


def test_two_runs_at_once_send_one_mail(server: MailServer) -> None:
    barrier, outcomes = threading.Barrier(2), []

    def run() -> None:
        barrier.wait()
        try:
            outcomes.append(send(job(), attempt())["accepted"])
        except (RetryLater, NotSent) as error:
            outcomes.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.mails) == 1
    assert 1 in outcomes


def test_hard_bounces_are_suppressed_until_lifted(server: MailServer, database_url: str, configure: Configure) -> None:
    from rqjobs.database import get_engine
    from rqjobs.database.schema import init_database

    configure()
    init_database(get_engine())
    server.rcpt["gone@a.example"] = "550 5.1.1 no such user here"
    with pytest.raises(PermanentFailure, match=r"every recipient was refused: gone@a\.example: 550 5\.1\.1"):
        send(job(to="Gone <gone@A.example>"), attempt())
    (known,) = list_suppressions()
    assert (known.address, known.job_id) == ("gone@a.example", "job-1")
    server.rcpt.clear()
    with pytest.raises(PermanentFailure, match=r"suppressed.*GONE@a\.example: 550 5\.1\.1"):
        send(job(to="GONE@A.example"), attempt("job-2"))
    result = send(job(to=["ada@a.example", "gone@a.example"]), attempt("job-3"))
    assert result["suppressed"] == {"gone@a.example": "550 5.1.1 no such user here"}
    assert server.mails[0].to == ["ada@a.example"]
    assert lift(["gone@a.example", "other@a.example"]) == ["gone@a.example"]
    send(job(to="gone@a.example"), attempt("job-4"))
    assert server.mails[1].to == ["gone@a.example"]


def test_two_spellings_of_an_address_that_does_not_exist(server: MailServer) -> None:
    server.rcpt = dict.fromkeys(("bob@b.example", "Bob@b.example"), "550 5.1.1 no such user")
    assert len(send(job(cc=list(server.rcpt)), attempt())["refused"]) == 2
    assert [known.address for known in list_suppressions()] == ["bob@b.example"]


@pytest.mark.parametrize("reply", ["550 5.7.1 blocked", "550 no", "552 5.2.2 full", "451 5.1.1 odd"])
def test_other_refusals_are_not_hard_bounces(server: MailServer, reply: str) -> None:
    server.rcpt["ada@a.example"] = reply
    with pytest.raises((PermanentFailure, NotSent)):
        send(job(), attempt())
    assert list_suppressions() == []


def test_letters_of_the_world(server: MailServer) -> None:
    subject = "\U0001f389 Gr\u00fc\u00dfe, \u3053\u3093\u306b\u3061\u306f " * 8
    send(
        job(
            to="\u00c5sa \U0001f600, K\u00f6nigin <\u00e5sa@b\u00fccher.example>",
            subject=subject.strip(),
            data={"name": "\u0410\u0434\u0430"},
        ),
        attempt(),
    )
    (mail,) = server.mails
    assert mail.to == ["\u00e5sa@xn--bcher-kva.example"]
    message = mail.message
    assert message["Subject"] == subject.strip()
    assert message["To"].addresses[0].display_name == "\u00c5sa \U0001f600, K\u00f6nigin"
    assert "Hi \u0410\u0434\u0430," in message.get_body(("plain",)).get_content()


def test_without_smtputf8_ascii_addresses_still_work(tmp_path: Path, configure: Configure) -> None:
    with smtp_server(tmp_path, utf8=False) as server:
        configure(SMTP_URL=f"smtp://localhost:{server.port}?ca={server.ca_file}")
        with pytest.raises(PermanentFailure, match="SMTPUTF8"):
            send(job(to="\u00e5sa@a.example"), attempt())
        send(job(to="\u00c5sa <asa@b\u00fccher.example>", subject="\U0001f389"), attempt("job-2"))
    assert server.mails[0].raw.isascii()
    assert server.mails[0].message["Subject"] == "\U0001f389"


def test_an_attachment_of_ten_megabytes_arrives_unchanged(
    server: MailServer, tmp_path: Path, configure: Configure
) -> None:
    content = os.urandom(10 * 1024 * 1024)
    (tmp_path / "big.bin").write_bytes(content)
    (tmp_path / "dots.txt").write_text(".\n..\n.\r\n.end")
    dotty = {"source": f"file://{tmp_path}/dots.txt", "name": "\u00fcbung \U0001f600.txt"}
    send(job(attachments=[str(tmp_path / "big.bin"), dotty]), attempt(seconds=60))
    big, dots = server.mails[0].message.iter_attachments()
    assert (big.get_content(), big.get_filename()) == (content, "big.bin")
    assert (dots.get_filename(), dots.get_content_type()) == ("\u00fcbung \U0001f600.txt", "text/plain")
    assert dots.get_payload(decode=True).replace(b"\r\n", b"\n") == b".\n..\n.\n.end"
    configure(EMAIL_MAX_ATTACHMENTS=str(10 * 1024 * 1024 - 1))
    with pytest.raises(PermanentFailure, match="EMAIL_MAX_ATTACHMENTS allows 10485759 bytes"):
        send(job(attachments=[str(tmp_path / "big.bin")]), attempt("job-2"))


def test_attachments_are_read_as_they_were_written(server: MailServer, tmp_path: Path) -> None:
    files = {"a.csv": "Größe;€\n".encode(), "b.txt": "Größe\n".encode("latin-1"), "c.eml": b"Subject: hi\r\n\r\nho\r\n"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    send(job(attachments=[str(tmp_path / name) for name in files]), attempt())
    table, old, mail = server.mails[0].message.iter_attachments()
    assert (table.get_content().splitlines(), table.get_content_type()) == (["Größe;€"], "text/csv")
    assert (old.get_param("charset"), old.get_payload(decode=True)) == (None, files["b.txt"])
    assert (mail.get_content_type(), mail.get_content()) == ("application/octet-stream", files["c.eml"])


def test_an_inline_image_is_not_listed_as_an_attachment(server: MailServer, tmp_path: Path) -> None:
    (tmp_path / "templates" / "email").mkdir(parents=True)
    (tmp_path / "templates" / "email" / "news.html.j2").write_text('<img src="cid:logo" alt="Shop"> news')
    (tmp_path / "logo.png").write_bytes(b"png")
    (tmp_path / "a.pdf").write_bytes(b"pdf")
    files = [str(tmp_path / "a.pdf"), {"source": str(tmp_path / "logo.png"), "contentId": "logo"}]
    send(job(template="news", attachments=files), attempt())
    message = server.mails[0].message
    assert [part.get_filename() for part in message.iter_attachments()] == ["a.pdf"]
    assert [part.get_content_type() for part in message.walk()] == [
        "multipart/mixed", "multipart/alternative", "text/plain", "multipart/related", "text/html", "image/png",
        "application/pdf"]  # fmt: skip
    (image,) = (part for part in message.walk() if part["Content-ID"])
    assert (image["Content-ID"], image.get_content_disposition(), image.get_content()) == ("<logo>", "inline", b"png")
    (tmp_path / "templates" / "email" / "news.html.j2").rename(tmp_path / "templates" / "email" / "news.txt.j2")
    send(job(template="news", attachments=files), attempt("job-2"))
    assert [part.get_filename() for part in server.mails[1].message.iter_attachments()] == ["logo.png", "a.pdf"]


def test_a_server_that_takes_less_is_not_sent_more(tmp_path: Path, configure: Configure) -> None:
    (tmp_path / "a.bin").write_bytes(b"x" * 50_000)
    with smtp_server(tmp_path, size_limit=20_000) as server:
        configure(SMTP_URL=f"smtp://localhost:{server.port}?ca={server.ca_file}")
        with pytest.raises(PermanentFailure, match="takes 20000"):
            send(job(attachments=[str(tmp_path / "a.bin")]), attempt())


@pytest.mark.parametrize("source", ["~/secret.txt", "file://~/secret.txt", "file:{}", "local:{}", "data:text/plain,hi"])
def test_the_path_of_an_attachment_is_not_expanded(
    server: MailServer, tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "secret.txt").write_text("s")
    (tmp_path / "files").mkdir()
    monkeypatch.chdir(tmp_path / "files")
    configure(EMAIL_ATTACHMENTS=".", HOME=str(home))
    with pytest.raises(PermanentFailure, match="no such file"):
        send(job(attachments=[source.format(home / "secret.txt")]), attempt())


@pytest.mark.parametrize("source", ["in.txt/x", "x" * 300, "loop", "pipe", "a\\b"])
def test_an_attachment_that_is_not_a_file_makes_the_job_dead(server: MailServer, tmp_path: Path, source: str) -> None:
    (tmp_path / "in.txt").write_text("a")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PermanentFailure, match="no such file"):
        send(job(attachments=[source]), attempt())


def test_files_keep_their_names(server: MailServer, tmp_path: Path) -> None:
    types = {"a#1.pdf": "application/pdf", "a?b.pdf": "application/pdf", "x.csv.gz": "application/octet-stream"}
    for name in types:
        (tmp_path / name).write_bytes(b"x")
    send(job(attachments=list(types)), attempt())
    sent = server.mails[0].message.iter_attachments()
    assert {part.get_filename(): part.get_content_type() for part in sent} == types


def test_a_mail_server_that_does_not_answer_is_unavailable(configure: Configure) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        configure(SMTP_URL=f"smtp://localhost:{sock.getsockname()[1]}")
        with pytest.raises(DependencyUnavailable, match="refused"):
            send(job(), attempt())
        sock.listen()  # now it is connected to, and says nothing
        with pytest.raises(DependencyUnavailable, match="timed out"):
            send(job(), attempt(seconds=2))


@pytest.mark.parametrize("greeting", ["421 4.3.2 busy", "554 5.7.1 blocked"])
def test_a_greeting_that_is_none(configure: Configure, greeting: str) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()

        def greet() -> None:
            connection, _ = sock.accept()
            with connection:
                connection.sendall(f"{greeting}\r\n".encode())

        thread = threading.Thread(target=greet)
        thread.start()
        configure(SMTP_URL=f"smtp://localhost:{sock.getsockname()[1]}")
        with pytest.raises(DependencyUnavailable, match=greeting[:3]):
            send(job(), attempt())
        thread.join()


def test_injected_headers_and_lines_stay_text(server: MailServer) -> None:
    evil = "x\r\nBcc: eve@e.example\r\n\r\n.\r\nMAIL FROM:<evil@e.example>\r\n"
    send(job(subject=None, data={"name": evil + "<script>alert(1)</script>{{ 7*7 }}", "product": evil}), attempt())
    (mail,) = server.mails
    assert mail.to == ["ada@a.example"]
    assert mail.message["Bcc"] is None
    assert mail.message["Subject"].startswith("Welcome to x Bcc: eve")
    html = mail.message.get_body(("html",)).get_content()
    assert "<script>" not in html
    assert "{{ 7*7 }}" in html


WORD = "=?utf-8?q?Boss_=3Cboss=40e.example=3E=2C=0D=0AX-Evil:_yes=0D=0A=0D=0APay?="
"""An encoded word (RFC 2047) with line breaks, an address, and a body."""


@pytest.mark.parametrize("backend_name", ["smtp", "file"])
@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"subject": None, "data": {"product": WORD}}, id="data"),
        pytest.param({"subject": WORD}, id="subject"),
        pytest.param({"to": f"{WORD} <ada@a.example>"}, id="to"),
        pytest.param({"sender": f"{WORD} <ada@a.example>", "reply_to": f"{WORD} <ada@a.example>"}, id="sender"),
        pytest.param({"attachments": [{"source": "a.txt", "name": WORD}]}, id="file"),
    ],
)
def test_encoded_words_stay_text(
    server: MailServer, configure: Configure, tmp_path: Path, backend_name: str, fields: dict
) -> None:
    (tmp_path / "a.txt").write_text("a")
    configure(EMAIL_BACKEND=backend_name)
    result = send(job(**fields), attempt())
    raw = server.mails[0].raw if backend_name == "smtp" else Path(result["provider_id"]).read_bytes()
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert {"X-Evil", "Bcc"}.isdisjoint(header for part in message.walk() for header in part)
    assert [box.addr_spec for box in message["To"].addresses] == ["ada@a.example"]
    assert "Hi Ada," in message.get_body(("plain",)).get_content() or "data" in fields
    assert b"\r\nX-Evil" not in raw
    assert b"\r\nPay" not in raw


def test_no_mail_dies_while_the_database_does_not_answer(server: MailServer, configure: Configure) -> None:
    configure(DATABASE_URL="postgresql://nobody:hunter2@127.0.0.1:1/x")
    with pytest.raises(DependencyUnavailable, match="database") as error:
        send(job(), attempt())
    assert "hunter2" not in str(error.value)


def test_a_long_header_is_not_damaged_by_folding(server: MailServer) -> None:
    link = f"<https://shop.example/u?t={'A' * 300}>, <mailto:u@shop.example>"
    send(job(headers={"List-Unsubscribe": link, "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}), attempt())
    assert f"List-Unsubscribe: {link}\r\n".encode() in server.mails[0].raw


def test_a_long_id_makes_a_valid_message_id(server: MailServer) -> None:
    send(job(), attempt("x" * 128))
    assert server.mails[0].message["Message-ID"] == f"<{'x' * 128}@shop.example>"
    assert f"Message-ID: <{'x' * 128}@shop.example>\r\n".encode() in server.mails[0].raw.replace(b":\r\n <", b": <")


def test_a_template_that_broke_after_enqueueing(server: MailServer) -> None:
    with pytest.raises(PermanentFailure, match=r"there is no nothing\.html\.j2"):
        send(job(template="nothing"), attempt())
    with pytest.raises(PermanentFailure, match="'url' is undefined"):
        send(job(template="password-reset"), attempt())
