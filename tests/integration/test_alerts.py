"""Alerts: raised once, told to everybody who is to know, added up while they must not be repeated."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import redis as redis_py

from rqjobs import WebhookJob, alerts, enqueue, keys
from rqjobs.alerts import Alert, check, on_alert, raise_alert
from rqjobs.settings import use_settings


@pytest.fixture
def told() -> Iterator[list[Alert]]:
    found: list[Alert] = []
    hook = on_alert(found.append)
    yield found
    alerts._hooks.remove(hook)


def look(redis: redis_py.Redis) -> None:
    redis.delete(keys.ALERT_TURN)
    check(redis)


def test_an_unhealthy_queue_is_told_once(redis: redis_py.Redis, told: list[Alert]) -> None:
    look(redis)
    assert told == []
    enqueue(WebhookJob(webhook_id="w", event="a.b", url="https://a.example/", payload={}))
    look(redis)
    look(redis)
    assert [(alert.kind, alert.subject) for alert in told] == [("queue-unhealthy", "webhooks")]
    assert "rqjobs worker" in told[0].text
    redis.delete(keys.alert("queue-unhealthy", "webhooks"))  # ALERT_EVERY is over
    look(redis)
    assert len(told) == 2


def test_dead_jobs_add_up_while_nothing_may_be_said(redis: redis_py.Redis, told: list[Alert]) -> None:
    redis.hset(keys.totals("email"), "failed", 100)
    look(redis)  # what died before anybody looked is no news
    assert told == []
    for died in (103, 105, 107):
        redis.hset(keys.totals("email"), "failed", died)
        look(redis)
    redis.delete(keys.alert("jobs-died", "email"))
    look(redis)
    assert [alert.text.split(".")[0] for alert in told] == ["email: 3 jobs died", "email: 4 jobs died"]


def test_one_process_looks_for_all(redis: redis_py.Redis, told: list[Alert]) -> None:
    check(redis)
    enqueue(WebhookJob(webhook_id="w", event="a.b", url="https://a.example/", payload={}))
    check(redis)
    assert told == []


def test_a_post_and_a_hook_that_fails(
    redis: redis_py.Redis, told: list[Alert], monkeypatch: pytest.MonkeyPatch
) -> None:
    posted = []

    class Chat(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            pass

    @on_alert
    def broken(_alert: Alert) -> None:
        raise RuntimeError("no")

    with ThreadingHTTPServer(("127.0.0.1", 0), Chat) as chat:
        threading.Thread(target=chat.serve_forever, daemon=True).start()
        monkeypatch.setenv("ALERT_URL", f"http://127.0.0.1:{chat.server_port}/x")
        use_settings(None)
        assert raise_alert(Alert(kind="endpoint-disabled", subject="shop", text="it is gone"), redis)
        chat.shutdown()
    alerts._hooks.remove(broken)
    assert posted == [{"kind": "endpoint-disabled", "subject": "shop", "text": "it is gone"}]
    assert len(told) == 1
