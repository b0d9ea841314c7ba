"""A person is told by a real worker of an endpoint that it gives up."""

from __future__ import annotations

import redis as redis_py

from rqjobs import WebhookJob, enqueue
from rqjobs.testing.sandbox.receiver import Receiver, signing_secret
from tests.support.chat import Chat
from tests.support.workers import Workers, eventually


def test_the_worker_that_disables_an_endpoint_sends_the_alert(workers: Workers, redis: redis_py.Redis) -> None:
    with Chat() as chat, Receiver(signing_secret()) as receiver:
        enqueue(WebhookJob(webhook_id="w", event="a.b", url=f"{receiver.url}/gone", payload={}))
        secret = {"WEBHOOK_SIGNING_SECRET": receiver.secret, "WEBHOOK_ALLOW": "127.0.0.1"}
        workers.start("webhooks", "--processes", "2", ALERT_URL=chat.url, **secret)
        (post,) = eventually(lambda: list(chat.posted))
    assert post["kind"] == "endpoint-disabled"
    assert f"{receiver.url}/gone is disabled: it answered 410" in post["text"]
    assert "hunter2" not in workers.logs()  # the path of the chat's address is its secret
