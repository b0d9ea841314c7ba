"""The receiver that a newcomer plays with answers whatever path is typed."""

from __future__ import annotations

import http.client
import time

import pytest

from rqjobs.security.signing import parse_secret, sign
from rqjobs.testing.sandbox.receiver import Receiver, signing_secret


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/ok", 204),
        ("/ok?x=1", 204),
        ("/gone?x=1", 410),
        ("/status/404?x=1", 404),
        ("/status/503", 503),
        ("/flaky/1?x=1", 503),
        ("/flaky/0", 204),
        ("/slow/0.01?x=1", 204),
        ("/status/", 404),
        ("/status/many", 404),
        ("/status/99", 404),
        ("/flaky", 404),
        ("/slow/-1", 404),
        ("*", 204),
    ],
)
def test_every_path_is_answered(path: str, status: int) -> None:
    secret, now = signing_secret(), int(time.time())
    headers = {
        "webhook-id": "a",
        "webhook-timestamp": str(now),
        "webhook-signature": sign([parse_secret(secret)], "a", now, b"{}"),
    }
    with Receiver(secret) as receiver:
        connection = http.client.HTTPConnection(receiver.url.removeprefix("http://"), timeout=60)
        connection.request("POST", path, b"{}", headers)
        assert connection.getresponse().status == status
        connection.close()
