"""Receivers that misbehave: each ends in a clear error within the deadline, and memory stays flat."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
import requests

from rqjobs.attempt import Attempt
from rqjobs.config.settings import use_settings
from rqjobs.database import get_engine
from rqjobs.database.schema import ensure_schema
from rqjobs.errors import PermanentFailure
from rqjobs.jobs import WebhookJob
from rqjobs.processors import webhook
from rqjobs.processors.webhook.transfer import RESPONSE_LIMIT, DeliveryFailed
from rqjobs.security.guarded_session import guarded_session
from rqjobs.security.ssrf import Guard
from tests.support.receiver import Answer, receiving

TLS = Path(__file__).parents[1] / "support" / "tls"
DEADLINE = 1.0
"""For those who have to be given up."""

pytestmark = pytest.mark.usefixtures("redis")
Raw = Callable[[asyncio.StreamWriter], object]


@pytest.fixture(autouse=True)
def _allowed(redis: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBHOOK_ALLOW", "127.0.0.1")
    use_settings(None)
    ensure_schema(get_engine())  # not within the deadline


def deliver(url: str, seconds: float = 30.0) -> object:
    job = WebhookJob(webhook_id="w", event="e", url=url, payload={})
    return asyncio.run(webhook.deliver(job, Attempt(job_id="j", queue="webhooks", timeout=timedelta(seconds=seconds))))


def says(data: bytes) -> Raw:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return answer


def goes_on(head: bytes, piece: bytes, pause: float = 0.0) -> Raw:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return answer


async def resets(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def says_nothing(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
HOSTILE: dict[str, tuple[Raw, str]] = {
    "broken chunk size": (says(CHUNKED + b"ZZZ\r\nhello\r\n"), "protocol connection"),
    "chunk without its end": (says(CHUNKED + b"5\r\nhel"), "protocol"),
    "huge chunk size": (says(CHUNKED + b"F" * 40 + b"\r\nx"), "protocol connection"),
    "endless chunk extension": (goes_on(CHUNKED + b"5;a=", b"a" * 10_000), "timeout protocol"),
    "endless headers": (goes_on(OK, b"x-more: " + b"y" * 1000 + b"\r\n"), "protocol"),
    "one endless header": (goes_on(OK + b"x: ", b"y" * 10_000), "protocol connection"),
    "endless interim answers": (goes_on(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"), "protocol"),
    "endless trailers": (goes_on(CHUNKED + b"0\r\n", b"x: " + b"y" * 1000 + b"\r\n"), "protocol"),
    "headers that drip": (goes_on(OK, b"x: y\r\n", 0.2), "timeout"),
    "a status line that drips": (goes_on(b"HTTP/1.1 2", b"0", 0.2), "timeout protocol"),
    "a body that drips": (goes_on(OK + b"content-length: 9999\r\n\r\n", b"y", 0.2), "timeout"),
    "immediate reset": (resets, "connection"),
    "immediate end": (says(b""), "protocol connection"),
    "no answer": (says_nothing, "timeout"),
    "not HTTP": (says(b"SSH-2.0-OpenSSH_9.9\r\n"), "protocol"),
    "binary noise": (says(bytes(range(256)) * 50), "protocol"),
    "HTTP/0.9": (says(b"hello"), "protocol"),
    "a status that is no number": (says(b"HTTP/1.1 abc OK\r\n\r\n"), "protocol"),
    "an impossible status": (says(b"HTTP/1.1 99999 OK\r\n\r\n"), "protocol"),
    "less than was said": (says(OK + b"content-length: 100\r\n\r\nshort"), "protocol"),
    "a negative length": (says(OK + b"content-length: -5\r\n\r\nx"), "protocol"),
    "two lengths": (says(OK + b"content-length: 1\r\ncontent-length: 2\r\n\r\nxx"), "protocol"),
    "NUL in a header": (says(OK + b"x: a\x00b\r\ncontent-length: 0\r\n\r\n"), "protocol"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_is_a_clear_error_within_the_deadline(name: str) -> None:
    raw, kinds = HOSTILE[name]
    with receiving(lambda request: Answer(raw=raw)) as receiver:
        started = time.monotonic()
        with pytest.raises(DeliveryFailed) as failed:
            deliver(receiver.url(), DEADLINE if "timeout" in kinds else 30.0)
        assert time.monotonic() - started < 30
    assert failed.value.kind in kinds.split()
    assert str(failed.value)


@pytest.mark.parametrize("head", [OK + b"\r\n", OK + b"content-length: 999999999999\r\n\r\n"])
def test_an_endless_body_is_cut_off_and_its_status_counts(head: bytes) -> None:
    with receiving(lambda request: Answer(raw=goes_on(head, b"y" * 100_000))) as receiver:
        assert deliver(receiver.url(), 5)["status"] == 200  # type: ignore[index]


def test_a_compressed_bomb_is_not_unpacked() -> None:
    with receiving(lambda request: Answer(200, b"\x1f\x8b" + b"x" * 100, {"content-encoding": "gzip"})) as receiver:
        assert deliver(receiver.url())["status"] == 200  # type: ignore[index]
        assert "accept-encoding" not in receiver.requests[0].headers


def test_memory_stays_flat() -> None:
    process = psutil.Process(os.getpid())

    async def many(url: str, count: int) -> None:
        job = WebhookJob(webhook_id="w", event="e", url=url, payload={})
        runs = [webhook.deliver(job, Attempt(job_id=f"j{n}", queue="webhooks")) for n in range(count)]
        await asyncio.gather(*runs, return_exceptions=True)

    bodies = [goes_on(OK + b"\r\n", b"y" * 100_000), goes_on(OK, b"x: " + b"y" * 5000 + b"\r\n"), resets]
    with receiving(lambda request: Answer(raw=bodies[len(receiver.requests) % len(bodies)])) as receiver:
        asyncio.run(many(receiver.url(), 60))
        before = process.memory_info().rss
        for _ in range(4):
            asyncio.run(many(receiver.url(), 60))
        assert process.memory_info().rss - before < 30_000_000
    assert RESPONSE_LIMIT == 20_000


def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "server.pem")
    return context


def test_tls_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBHOOK_ALLOW", "localhost")
    use_settings(None)
    with receiving(tls=server_tls()) as receiver:
        with pytest.raises(DeliveryFailed) as unknown:
            deliver(receiver.url(host="localhost"))  # an authority that nobody knows
        monkeypatch.setenv("WEBHOOK_CA_FILE", str(TLS / "ca.pem"))
        use_settings(None)
        assert deliver(receiver.url(host="localhost"))["status"] == 200  # type: ignore[index]
        with pytest.raises(DeliveryFailed) as other_name:
            deliver(receiver.url(host="127.0.0.1"))
        assert {unknown.value.kind, other_name.value.kind} == {"tls"}
        guard = Guard.build(["localhost"])
        with guarded_session(guard) as session:  # TLS names stay those of the URL, though the address is pinned
            assert session.get(receiver.url(host="localhost"), verify=str(TLS / "ca.pem"), timeout=60).ok
            with pytest.raises(requests.exceptions.SSLError):
                session.get(receiver.url(host="127.0.0.1"), verify=str(TLS / "ca.pem"), timeout=60)


def test_a_server_without_tls_is_a_tls_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.recv(10_000)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(DeliveryFailed) as failed:
            deliver(f"https://127.0.0.1:{server.getsockname()[1]}/")
        thread.join()
    assert failed.value.kind == "tls"


def test_the_guard_has_the_last_word_when_a_socket_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if our look at the name's addresses had let them pass."""
    with receiving() as receiver:
        monkeypatch.setenv("WEBHOOK_ALLOW", "")
        monkeypatch.setenv("WEBHOOK_PORTS", str(receiver.port))
        use_settings(None)
        monkeypatch.setattr(Guard, "check_addresses", lambda _self, _host, _port, addresses: addresses)
        with pytest.raises(PermanentFailure, match="'loopback'"):
            deliver(receiver.url(host="localhost"))
        assert receiver.connections == 0


def test_a_redirect_to_loopback_is_not_followed() -> None:
    with receiving() as inside, receiving() as receiver:
        receiver.answer = lambda request: Answer(307, headers={"location": inside.url()})
        with pytest.raises(PermanentFailure, match="307"):
            deliver(receiver.url())
        assert inside.connections == 0


def test_the_environments_proxy_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "all_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with receiving() as receiver:
        assert deliver(receiver.url())["status"] == 200  # type: ignore[index]


GOOD = (
    OK
    + b"content-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n3;x=y\r\n...\r\n0\r\nx: y\r\n\r\n"
)


def broken(chosen: random.Random) -> bytes:
    """A good answer with some bytes changed, cut out, doubled, or the rest missing."""
    data = bytearray(GOOD)
    for _ in range(chosen.randint(1, 4)):
        at, length = chosen.randrange(len(data)), chosen.randint(1, 8)
        piece = chosen.choice([chosen.randbytes(length), b"", bytes(data[at : at + length]) * 50, b"\r\n", b"\xff" * 9])
        data[at : at + length] = piece
        if chosen.random() < 0.2:
            del data[at + 1 :]
    return bytes(data)


def test_a_thousand_fuzzed_answers_each_have_an_outcome_and_memory_stays_flat() -> None:
    seeds = iter(range(100_000))
    memory: list[int] = []
    counts: Counter[str] = Counter()

    async def one(url: str, number: int) -> None:
        job = WebhookJob(webhook_id="w", event="e", url=url, payload={})
        attempt = Attempt(job_id=f"j{number}", queue="webhooks", timeout=timedelta(seconds=10))
        started = time.monotonic()
        try:
            counts[f"{(await webhook.deliver(job, attempt))['status']}"] += 1
        except (DeliveryFailed, PermanentFailure) as failed:
            counts[getattr(failed, "kind", "dead")] += bool(str(failed))
        assert time.monotonic() - started < 40

    async def all_of_them(url: str) -> None:
        for number in range(0, 1000, 50):
            await asyncio.gather(*(one(url, number + n) for n in range(50)))
            memory.append(psutil.Process().memory_info().rss)

    with receiving(lambda request: Answer(raw=says(broken(random.Random(next(seeds)))))) as receiver:
        asyncio.run(all_of_them(receiver.url()))
    assert counts.total() == 1000
    assert counts["protocol"] > 100
    assert counts["200"] > 100  # a changed byte of the body is no fault
    assert memory[-1] - memory[4] < 20_000_000
