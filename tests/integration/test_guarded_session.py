"""The guard under requests. It stands on names inside urllib3 2.x, so every one of them is used here."""

from __future__ import annotations

import socket

import pytest
import requests

from rqjobs.security.guarded_session import guarded_session
from rqjobs.security.ssrf import Guard, TargetRefused
from tests.support.receiver import Answer, receiving


def test_an_exempt_host_is_reached_and_connections_are_kept() -> None:
    with receiving() as receiver, guarded_session(Guard.build(["127.0.0.1"])) as session:
        for _ in range(3):
            assert session.post(receiver.url(), data=b"{}", timeout=60).text == "ok"
        assert receiver.connections == 1
        assert receiver.requests[0].headers["host"] == f"127.0.0.1:{receiver.port}"


def test_loopback_is_refused_without_a_connection() -> None:
    with receiving() as receiver, guarded_session(Guard.build(ports=[receiver.port])) as session:
        for host in ("127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]"):
            with pytest.raises(TargetRefused, match="loopback"):
                session.post(receiver.url(host=host), timeout=60)
        assert receiver.connections == 0


def test_a_redirect_to_loopback_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as receiver, guarded_session(Guard.build(["good.test"], [receiver.port])) as session:
        real = socket.getaddrinfo
        monkeypatch.setattr(
            socket, "getaddrinfo", lambda host, *args, **kwargs: real("127.0.0.1", *args, **kwargs)
        )  # both names are loopback; only good.test is exempt
        receiver.answer = lambda request: Answer(302, headers={"location": receiver.url("/in", "evil.test")})
        with pytest.raises(TargetRefused, match="loopback"):
            session.get(receiver.url("/out", "good.test"), timeout=60)
        assert [request.path for request in receiver.requests] == ["/out"]


def test_a_name_without_an_address() -> None:
    with guarded_session(Guard()) as session, pytest.raises(requests.ConnectionError, match=r"nowhere\.invalid"):
        session.get("http://nowhere.invalid/", timeout=60)


def test_the_environments_proxy_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with receiving() as receiver, guarded_session(Guard.build(["127.0.0.1"])) as session:
        assert session.get(receiver.url(), timeout=60).ok
