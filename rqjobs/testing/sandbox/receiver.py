"""A webhook receiver: checks signatures as a customer's would, and can be told to fail."""

from __future__ import annotations

import base64
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from rqjobs.security.signing import InvalidSignature, verify
from rqjobs.testing.sandbox.server import LocalServer, Request

_NUMBER = re.compile(r"\d{1,6}(\.\d{1,6})?")


@dataclass(frozen=True)
class Received:
    """One request, as it came in."""

    path: str
    headers: dict[str, str]
    """By lower-case name."""
    body: bytes
    at: float
    """Unix time."""
    verified: bool
    """Whether the signature fits the body."""
    status: int
    """What was answered."""

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


@dataclass
class Receiver(LocalServer):
    """A receiver on 127.0.0.1. Use it as a context manager.

    ``/ok`` answers 204 to whoever signed well and 401 to others, ``/flaky/N`` fails N times for each webhook-id
    and then works, ``/gone`` answers 410, ``/status/N`` answers N, ``/slow/N`` answers after N seconds. A query may
    follow, so that one delivery can be told from another; without a number these three answer 404.
    """

    secret: str
    received: list[Received] = field(default_factory=list)
    port: int = 0
    """Where to listen; 0 takes any free port."""
    more_secrets: Sequence[str] = ()
    """Signed with one of these is well signed too."""
    on_request: Callable[[Received], None] | None = None
    """Told of each request."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self.listen(port=self.port)

    def handle(self, request: Request) -> None:
        """Checks the signature, keeps the request, and answers by its path."""
        body, headers = request.read(), request.named_headers()
        try:
            verify([self.secret, *self.more_secrets], headers, body, now=time.time())
            verified = True
        except InvalidSignature:
            verified = False
        with self._lock:
            status = self._status(request.path, headers, verified=verified)
            received = Received(request.path, headers, body, time.time(), verified, status)
            self.received.append(received)
        if self.on_request is not None:
            self.on_request(received)
        kind, number = _behaviour(request.path)
        if kind == "slow" and number is not None:
            time.sleep(number)
        request.answer(status)

    def _status(self, path: str, headers: dict[str, str], *, verified: bool) -> int:
        if not verified:
            return 401
        kind, number = _behaviour(path)
        if kind in ("flaky", "slow", "status") and number is None:
            return 404
        if kind == "flaky" and number is not None:
            seen = sum(r.path == path and r.headers.get("webhook-id") == headers["webhook-id"] for r in self.received)
            return 503 if seen < number else 204
        if kind == "status" and number is not None:
            return int(number) if number in range(200, 600) else 404
        return {"gone": 410}.get(kind, 204)


def _behaviour(path: str) -> tuple[str, float | None]:
    """What ``path`` asks for, and its number; a query says nothing."""
    _, kind, number, *_ = (urlsplit(path).path + "//").split("/")
    return kind, float(number) if _NUMBER.fullmatch(number) else None


def signing_secret() -> str:
    """A new ``whsec_`` secret."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
