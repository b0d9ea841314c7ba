"""Alerts: raised once, told to everybody who is to know, added up while they must not be repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import redis as redis_py

from rqjobs import WebhookJob, enqueue
from rqjobs.broker import keys
from rqjobs.config.logs import TextFormatter
from rqjobs.monitoring import alerts
from rqjobs.monitoring.alerts import Alert, Outage, check, on_alert, raise_alert
from tests.support.chat import Chat
from tests.support.smtp import PASSWORD, USER, smtp_server


@pytest.fixture
def told() -> Iterator[list[Alert]]:
    found: list[Alert] = []
    hook = on_alert(found.append)
    yield found
    alerts._hooks.remove(hook)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.handler.setFormatter(TextFormatter())
    return caplog


def webhook() -> WebhookJob:
    return WebhookJob(webhook_id="w", event="a.b", url="https://a.example/", payload={})


Configure = Callable[..., None]


def look(redis: redis_py.Redis) -> None:
    redis.delete(keys.ALERT_TURN)
    check(redis)


def test_an_unhealthy_queue_is_alerted_once(redis: redis_py.Redis, told: list[Alert]) -> None:
    look(redis)
    assert told == []
    enqueue(webhook())
    look(redis)
    assert told == []  # a worker may be starting this moment
    look(redis)
    look(redis)
    assert [(alert.kind, alert.subject) for alert in told] == [("queue-unhealthy", "webhooks")]
    assert "rqjobs worker" in told[0].text
    redis.delete(keys.alert("queue-unhealthy", "webhooks"))  # ALERT_EVERY is over
    look(redis)
    assert len(told) == 2


def test_an_outage_of_redis_is_alerted_without_redis(redis: redis_py.Redis, told: list[Alert]) -> None:
    outage = Outage()
    redis.config_set("maxmemory", "1mb")
    try:
        alerts.look(outage)
        assert told == []  # it may only have been restarted
        for _look in range(3):
            alerts.look(outage)
        (alert,) = told
        assert alert.kind == "redis-unusable"
        assert "maxmemory" in alert.text
    finally:
        redis.config_set("maxmemory", "0")
    for _look in range(2):
        alerts.look(outage)
    assert [alert.kind for alert in told] == ["redis-unusable", "redis-usable"]


def test_dead_jobs_are_summed_up_between_two_alerts(redis: redis_py.Redis, told: list[Alert]) -> None:
    redis.hset(keys.totals("email"), "failed", 100)
    look(redis)  # what died before anybody looked is no news
    assert told == []
    for died in (103, 105, 107):
        redis.hset(keys.totals("email"), "failed", died)
        look(redis)
    redis.delete(keys.alert("jobs-died", "email"))
    look(redis)
    assert [alert.text.split(".")[0] for alert in told] == ["email: 3 jobs died", "email: 4 jobs died"]


def test_only_one_process_checks_the_queues(redis: redis_py.Redis, told: list[Alert]) -> None:
    check(redis)
    enqueue(webhook())
    check(redis)
    assert told == []


def test_a_queue_that_is_healthy_again(redis: redis_py.Redis, told: list[Alert]) -> None:
    enqueue(webhook())
    look(redis)
    look(redis)
    redis.delete("rq:queue:webhooks")
    look(redis)
    look(redis)
    assert [alert.kind for alert in told] == ["queue-unhealthy", "queue-recovered"]
    assert told[1].text == "webhooks is healthy again"


def test_a_restart_of_workers_causes_no_alert(redis: redis_py.Redis, told: list[Alert]) -> None:
    enqueue(webhook())
    look(redis)
    redis.delete("rq:queue:webhooks")
    look(redis)
    enqueue(webhook())
    look(redis)
    assert told == []


GONE = Alert(kind="endpoint-disabled", subject="a shop", text="it is gone")


def test_a_post_and_a_hook_that_fails(redis: redis_py.Redis, told: list[Alert], configure: Configure) -> None:
    @on_alert
    def broken(_alert: Alert) -> None:
        raise RuntimeError("no")

    with Chat() as chat:
        configure(ALERT_URL=chat.url, DASHBOARD_URL="https://ops.example/")
        assert raise_alert(GONE, redis)
    alerts._hooks.remove(broken)
    link = "https://ops.example/webhooks/?to=a%20shop"
    assert chat.posted == [
        {"kind": "endpoint-disabled", "subject": "a shop", "text": f"it is gone {link}", "link": link}
    ]
    assert told == [GONE]


def test_an_alert_that_no_receiver_got_is_sent_again_without_logging_its_url(
    redis: redis_py.Redis, configure: Configure, log: pytest.LogCaptureFixture
) -> None:
    redis.hset(keys.ALERT_SEEN, "email", 0)
    redis.hset(keys.totals("email"), "failed", 3)
    with Chat(status=404) as chat:
        configure(ALERT_URL=chat.url)
        look(redis)
    assert "ALERT_URL answers 404" in log.text
    redis.delete(keys.alert("jobs-died", "email"))
    look(redis)  # the chat does not even listen any more
    assert "ALERT_URL cannot be reached" in log.text
    assert "hunter2" not in log.text
    assert 0 < redis.ttl(keys.alert("jobs-died", "email")) <= 60
    redis.delete(keys.alert("jobs-died", "email"))
    with Chat() as chat:
        configure(ALERT_URL=chat.url)
        look(redis)
    assert [post["text"].split(".")[0] for post in chat.posted] == ["email: 3 jobs died"]


def test_the_poster_follows_no_redirect_and_sends_no_credentials_of_netrc(
    redis: redis_py.Redis, tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ops password hunter3\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with Chat() as other, Chat(status=307) as chat:
        chat.headers["Location"] = other.url
        configure(ALERT_URL=chat.url)
        raise_alert(Alert(kind="jobs-died", subject="email", text="1 job died"))
        (asked,) = chat.asked
        assert "authorization" not in {name.lower() for name in asked.headers}
        assert other.asked == []
        configure(ALERT_URL=chat.url.replace("http://", "http://me:mine@"))
        raise_alert(Alert(kind="jobs-died", subject="webhooks", text="1 job died"))
        assert chat.asked[-1].headers["Authorization"] == "Basic bWU6bWluZQ=="


def test_a_mail_by_the_mail_server_of_the_settings(redis: redis_py.Redis, tmp_path: Path, configure: Configure) -> None:
    with smtp_server(tmp_path, auth=True) as server:
        login = f"{USER}:{quote(PASSWORD, safe='')}"
        configure(
            SMTP_URL=f"smtp://{login}@localhost:{server.port}?ca={server.ca_file}",
            EMAIL_FROM="Shop <shop@shop.example>",
            ALERT_EMAIL="ops@shop.example, night@shop.example",
            DASHBOARD_URL="https://ops.example",
        )
        redis.hset(keys.totals("email"), "failed", 1)
        look(redis)
        redis.hset(keys.totals("email"), "failed", 4)
        look(redis)
        look(redis)
    (mail,) = server.mails
    assert mail.tls
    assert mail.user == USER
    assert mail.sender == "shop@shop.example"
    assert mail.to == ["ops@shop.example", "night@shop.example"]
    assert mail.message["Subject"] == "rqjobs: jobs-died: email"
    assert mail.message.get_content().replace("\r\n", "\n") == (
        "email: 3 jobs died. See why: rqjobs failed groups --queue email\n\nhttps://ops.example/dead/?queue=email\n"
    )


def test_a_mail_never_sends_a_password_in_the_clear(
    redis: redis_py.Redis, tmp_path: Path, configure: Configure, log: pytest.LogCaptureFixture
) -> None:
    with smtp_server(tmp_path, starttls=False) as server:
        configure(SMTP_URL=f"smtp://u:hunter2@localhost:{server.port}", ALERT_EMAIL="ops@shop.example")
        assert not raise_alert(GONE, redis)
    assert server.mails == []
    assert "never sent in the clear" in log.text
