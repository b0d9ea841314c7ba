"""A TCP proxy in front of Redis that cuts, delays, stays silent, or loses replies."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Iterator
from typing import Self


class Proxy:
    """Forwards connections to 127.0.0.1:``target`` while entered. Its faults are attributes, changed at any time."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.delay = 0.0
        """Seconds that each piece waits, in both directions."""
        self.silent = False
        """Nothing is forwarded, and no connection is closed: half open."""
        self.refuse = False
        """New connections are closed at once."""
        self.lose_replies = 0.0
        """The share of replies that are dropped, with their connection."""
        self.tear_replies = 0.0
        """The share of replies that are cut in the middle, with their connection."""
        self.lose_requests = 0.0
        """The share of requests that are dropped, with their connection."""
        self.broken = 0
        """How many connections were broken."""
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_error: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Breaks all connections."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(60)

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """No connection, old or new."""
        self.refuse = True
        try:
            self.cut()
            yield
        finally:
            self.refuse = False

    def cut_for(self, seconds: float) -> None:
        """Breaks all connections and refuses new ones for a while."""
        with self.away():
            time.sleep(seconds)

    async def _cut(self) -> None:
        for writer in list(self._writers):
            self._break(writer)

    def _break(self, writer: asyncio.StreamWriter) -> None:
        self.broken += 1
        with contextlib.suppress(AttributeError):
            writer.transport.abort()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.run_until_complete(asyncio.sleep(0.01))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuse:
            writer.transport.abort()
            return
        try:
            answers, requests = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, requests}
        self._writers |= pair
        try:
            await asyncio.gather(self._pump(reader, requests, writer), self._pump(answers, writer, requests, True))
        finally:
            self._writers -= pair
            for one in pair:
                with contextlib.suppress(AttributeError):
                    one.transport.abort()

    async def _pump(
        self, source: asyncio.StreamReader, to: asyncio.StreamWriter, other: asyncio.StreamWriter, replies: bool = False
    ) -> None:
        try:
            while piece := await source.read(1 << 16):
                while self.silent:  # noqa: ASYNC110  # an attribute of another thread: no event to wait for
                    await asyncio.sleep(0.05)
                if self.delay:
                    await asyncio.sleep(self.delay)
                if random.random() < (self.lose_replies if replies else self.lose_requests):
                    break
                if replies and random.random() < self.tear_replies:
                    to.write(piece[: len(piece) // 2])
                    await to.drain()
                    break
                to.write(piece)
                await to.drain()
        except (OSError, asyncio.CancelledError):
            pass
        for one in (to, other):
            self._break(one)
