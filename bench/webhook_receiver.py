"""The other side of the webhook benchmark: answers every POST after DELAY seconds. ``python -m bench.webhook_receiver
PORT DELAY [DEAD_PORT]``; what comes to DEAD_PORT is accepted and never answered.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import ClassVar

import uvloop

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Receiver(asyncio.Protocol):
    """The least that a receiver can cost: it runs on the same cores as what is measured."""

    delay = 0.02
    count = 0
    times: ClassVar[dict[bytes, float]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.buffer[:end].lower() + b"\r\n"
        start = head.find(b"content-length:") + 15
        length = int(head[start : head.find(b"\r\n", start)])
        if len(self.buffer) < end + 4 + length:
            return
        self.buffer = b""
        if head.startswith(b"get "):
            self.tell(head)
            return
        Receiver.count += 1
        path = head[5 : head.index(b" ", 5)]
        if path != b"/hook":
            Receiver.times[path] = time.time()
        asyncio.get_running_loop().call_later(self.delay, self.answer)

    def answer(self) -> None:
        """Says that it has come, to who still listens."""
        if not self.transport.is_closing():
            self.transport.write(ANSWER)

    def tell(self, head: bytes) -> None:
        """How many deliveries have come so far; or when the latest to each path came."""
        lines = [b"%s %f" % item for item in self.times.items()] if b"/times" in head else [b"%d" % self.count]
        self.transport.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"\n".join(lines))
        self.transport.close()


class Dead(asyncio.Protocol):
    """Accepts and never answers."""


async def main(port: int, delay: float, dead_port: int) -> None:
    Receiver.delay = delay
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Receiver, "127.0.0.1", port, backlog=2048)
    await loop.create_server(Dead, "127.0.0.1", dead_port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
