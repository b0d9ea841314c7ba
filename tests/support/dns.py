"""A DNS server of the test's own, on loopback by UDP: answers, refuses, hangs, or is away."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address

A, NS, CNAME, AAAA = 1, 2, 5, 28
NOERROR, SERVFAIL, NXDOMAIN, REFUSED = 0, 2, 3, 5


@dataclass(frozen=True)
class Reply:
    """What is answered; ``None`` in its place leaves the question without an answer."""

    addresses: tuple[str, ...] = ()
    code: int = NOERROR
    aliases: tuple[str, ...] = ()
    """A chain of CNAMEs that the name leads through."""
    ttl: int = 60
    delay: float = 0.0


Rule = Callable[[str], Reply | None]


@dataclass
class Nameserver:
    """Answers questions by ``rule``, in a thread; the root's NS, which tells whether it lives, by ``root``."""

    rule: Rule
    port: int = 0
    root: Reply | None = Reply()
    asked: list[tuple[str, int]] = field(default_factory=list)
    """The names and types of the questions that came."""

    @property
    def address(self) -> str:
        """As WEBHOOK_NAMESERVERS takes it."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listens, on the port it had before."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", self.port))
        self._socket.settimeout(0.05)
        self.port = self._socket.getsockname()[1]
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(self._socket, self._ends), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Questions find a closed port."""
        self._ends.set()
        self._thread.join()
        self._socket.close()

    def count(self, name: str) -> int:
        """How many questions for addresses of ``name`` came."""
        return sum(asked == name for asked, kind in self.asked if kind == A)

    def _serve(self, sock: socket.socket, ends: threading.Event) -> None:
        later: list[tuple[float, bytes, object]] = []
        while not ends.is_set():
            now = time.monotonic()
            for item in [item for item in later if item[0] <= now]:
                later.remove(item)
                sock.sendto(item[1], item[2])  # type: ignore[arg-type]
            try:
                data, client = sock.recvfrom(4096)
            except TimeoutError:
                continue
            name, kind = question(data)
            self.asked.append((name, kind))
            reply = self.root if name == "" else self.rule(name)
            if reply is None:
                continue
            message = build(data, name, kind, reply)
            if reply.delay:
                later.append((time.monotonic() + reply.delay, message, client))
            else:
                sock.sendto(message, client)


def question(data: bytes) -> tuple[str, int]:
    """The name, in small letters, and the type that a query asks for."""
    labels, at = [], 12
    while size := data[at]:
        labels.append(data[at + 1 : at + 1 + size].decode().lower())
        at += 1 + size
    return ".".join(labels), struct.unpack("!H", data[at + 1 : at + 3])[0]


def _name(name: str) -> bytes:
    labels = [label.encode() for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def build(query: bytes, name: str, kind: int, reply: Reply) -> bytes:
    """The reply to ``query`` on the wire."""
    records, owner = [], name
    for alias in reply.aliases:
        data = _name(alias)
        records.append(_name(owner) + struct.pack("!HHIH", CNAME, 1, reply.ttl, len(data)) + data)
        owner = alias
    for address in reply.addresses:
        parsed = ip_address(address)
        if (parsed.version == 4) == (kind == A) and kind in (A, AAAA):
            data = parsed.packed
            records.append(_name(owner) + struct.pack("!HHIH", kind, 1, reply.ttl, len(data)) + data)
    if name == "" and reply.code == NOERROR:
        data = _name("a.root-servers.net")
        records.append(_name("") + struct.pack("!HHIH", NS, 1, 3600, len(data)) + data)
    head = query[:2] + struct.pack("!HHHHH", 0x8180 | reply.code, 1, len(records), 0, 0)
    return head + _name(name) + struct.pack("!HH", kind, 1) + b"".join(records)


@contextmanager
def nameserver(rule: Rule) -> Iterator[Nameserver]:
    """A running one."""
    server = Nameserver(rule)
    server.start()
    try:
        yield server
    finally:
        server.stop()
