"""A webhook receiver for tests: checks signatures as a customer's server would, and fails on request."""

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
    """One received request."""

    path: str
    headers: dict[str, str]
    """The headers by name, in lower case."""
    body: bytes
    at: float
    """The time of arrival, as Unix time."""
    verified: bool
    """Whether the signature is valid."""
    status: int
    """The HTTP status of the response."""

    @property
    def json(self) -> Any:
        """Returns the parsed body."""
        return json.loads(self.body)


@dataclass
class Receiver(LocalServer):
    """A receiver on 127.0.0.1: a context manager, which serves inside its block.

    ``/ok`` returns 204 for a valid signature and 401 otherwise, ``/flaky/N`` fails N times for each webhook-id and then
    succeeds, ``/gone`` returns 410, ``/status/N`` returns N, ``/slow/N`` responds after N seconds. A query may follow,
    to tell deliveries apart; without a number the last two and ``/flaky`` return 404.
    """

    secret: str
    received: list[Received] = field(default_factory=list)
    port: int = 0
    """The port to listen on; 0 for any free port."""
    more_secrets: Sequence[str] = ()
    """Further secrets whose signatures are valid."""
    on_request: Callable[[Received], None] | None = None
    """Called with each request."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self.listen(port=self.port)

    def handle(self, request: Request) -> None:
        """Checks the signature, records the request, and responds according to its path."""
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
    """Returns the kind of response that ``path`` selects, and its number; ignores the query."""
    _, kind, number, *_ = (urlsplit(path).path + "//").split("/")
    return kind, float(number) if _NUMBER.fullmatch(number) else None


def signing_secret() -> str:
    """Returns a new ``whsec_`` secret."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
