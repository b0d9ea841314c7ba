"""Servers of hostile tenants, in a process of their own, so that what they cost is no cost of the test's receiver."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from tests.support.receiver import Answer, Received, Receiver

OK = b"HTTP/1.1 200 OK\r\n"
HUGE = 50_000_000


def _drips(head: bytes, piece: bytes) -> Callable[[asyncio.StreamWriter], object]:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.2)

    return answer


async def _huge(writer: asyncio.StreamWriter) -> None:
    writer.write(OK + b"content-length: %d\r\n\r\n" % HUGE)
    for _ in range(HUGE // 100_000):
        if writer.is_closing():
            return
        writer.write(b"y" * 100_000)
        await writer.drain()


ANSWERS = {
    "drips-head": Answer(raw=_drips(OK, b"x: y\r\n")),
    "drips-body": Answer(raw=_drips(OK + b"content-length: 9999\r\n\r\n", b"y")),
    "huge": Answer(raw=_huge),
    "gone": Answer(410),
    "fails": Answer(500),
    "away": Answer(503),
    "noise": Answer(raw=_drips(os.urandom(500), b"")),
}
KINDS = (*ANSWERS, "redirects", "silent", "refused", "garbled-tls", "hangs")
"""All kinds of hostile destinations: of the last four, ``hangs`` has a name without an answer, the others a port."""


def _answer(request: Received) -> Answer:
    kind = request.path.split("/")[1]
    return Answer(307, headers={"location": request.path}) if kind == "redirects" else ANSWERS[kind]


class _Garbled(Receiver):
    """Answers whatever comes, such as the first words of TLS, with noise."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await reader.read(1)
            writer.write(os.urandom(500))
            await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


class _Silent(Receiver):
    """Accepts, and neither reads nor writes."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            writer.transport.abort()


def _serve(pipe: Connection) -> None:
    http, garbled, silent = Receiver(_answer).start(), _Garbled().start(), _Silent().start()
    pipe.send({"http": http.port, "garbled-tls": garbled.port, "silent": silent.port})
    while pipe.recv():  # any word asks for the counts
        counts = Counter(request.path.split("/")[1] for request in http.requests)
        pipe.send(counts | {"garbled-tls": garbled.connections, "silent": silent.connections})


class HostileServers:
    """The running process."""

    def __init__(self, pipe: Connection, ports: dict[str, int]) -> None:
        self._pipe, self._ports = pipe, ports

    def url(self, kind: str, number: int) -> str:
        """A URL of this kind, on one of 25 hosts that belong to as many tenants."""
        host = f"{'hang' if kind == 'hangs' else 'x'}{number}.{kind}{number % 25}.test"
        port = self._ports.get(kind, self._ports["http"])
        return f"{'https' if kind == 'garbled-tls' else 'http'}://{host}:{port}/{kind}/{number % 25}"

    def counts(self) -> Counter[str]:
        """By kind, how many requests, or connections, came."""
        self._pipe.send("counts")
        return Counter(self._pipe.recv())


@contextmanager
def hostile_servers() -> Iterator[HostileServers]:
    """A running process with a server for each kind; ``refused`` has a port that is bound and does not listen."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    with socket.socket() as bound, ours, theirs:
        bound.bind(("127.0.0.1", 0))
        try:
            assert ours.poll(120), "the hostile servers did not start"
            yield HostileServers(ours, {**ours.recv(), "refused": bound.getsockname()[1]})
        finally:
            process.terminate()
            process.join()
