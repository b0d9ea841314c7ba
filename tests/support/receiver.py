"""A webhook receiver on loopback: real HTTP/1.1 with keep-alive, in a thread, answering what a test tells it to."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Received:
    """One request as it arrived."""

    at: float
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def webhook_id(self) -> str:
        return self.headers.get("webhook-id", "")


@dataclass(frozen=True)
class Answer:
    """What is answered: an HTTP response after ``delay`` seconds, or ``raw`` bytes and the end of the connection."""

    status: int = 200
    body: bytes = b"ok"
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    raw: Callable[[asyncio.StreamWriter], object] | None = None
    """A coroutine function that does what it likes with the connection."""


Answerer = Callable[[Received], Answer]


class Receiver:
    """Answers every POST by ``answer`` and remembers all of them in ``requests``."""

    def __init__(self, answer: Answerer | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.answer: Answerer = answer or (lambda request: Answer())
        self.requests: list[Received] = []
        self.connections = 0
        self.port = 0
        self._tls = tls
        self._writers: weakref.WeakSet[asyncio.StreamWriter] = weakref.WeakSet()
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def url(self, path: str = "/hook", host: str = "127.0.0.1") -> str:
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}{path}"

    def start(self) -> Receiver:
        self._thread.start()
        assert self._started.wait(60)
        return self

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def wait_for(self, count: int, timeout: float = 60) -> list[Received]:
        """The first ``count`` requests, once they have arrived."""
        end = time.monotonic() + timeout
        while len(self.requests) < count:
            assert time.monotonic() < end, f"{len(self.requests)} of {count} requests arrived in {timeout} s"
            time.sleep(0.01)
        return self.requests[:count]

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls))
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        for writer in self._writers:  # what nobody reads any more would keep them open
            with contextlib.suppress(AttributeError):  # asyncio's TLS transport, if it was closed twice
                writer.transport.abort()
        self._loop.run_until_complete(asyncio.sleep(0.01))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if not await self._one(head, reader, writer):
                    break
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass
        finally:
            with contextlib.suppress(OSError, RuntimeError):
                writer.close()

    async def _one(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        request = Received(time.time(), first.split(" ")[1], headers, body)
        self.requests.append(request)
        answer = self.answer(request)
        if answer.delay:
            await asyncio.sleep(answer.delay)
        if answer.raw is not None:
            await answer.raw(writer)  # type: ignore[misc]
            return False
        extra = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
        writer.write(
            f"HTTP/1.1 {answer.status} X\r\ncontent-length: {len(answer.body)}\r\n{extra}\r\n".encode() + answer.body
        )
        await writer.drain()
        return True


@contextlib.contextmanager
def receiving(answer: Answerer | None = None, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A running receiver."""
    receiver = Receiver(answer, tls).start()
    try:
        yield receiver
    finally:
        receiver.stop()
