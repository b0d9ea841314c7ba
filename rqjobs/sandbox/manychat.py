"""ManyChat's public API on loopback: its endpoints, limits, errors and quirks, over HTTP.

Known to differ: nothing is sent to anybody, and accounts live in memory. ``GET /sandbox/state`` shows them.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qsl, urlsplit

from rqjobs.sandbox.manychat_account import Account, ApiFault, Clearing

LIMITS = {"page": 100, "find": 50, "send": 20, "other": 10}
"""Calls a second and token, by the kind of call."""

DEFAULT_TOKEN = "1000:sandbox"  # noqa: S105  # opens nothing but the sandbox
"""The token that ``rqjobs sandbox manychat`` accepts unless told otherwise."""

_NOT_FOUND = "<!DOCTYPE html><html><head><title>Page not found</title></head><body>" + "<p></p>" * 5500 + "</body>"


class Call(NamedTuple):
    """One request that came in."""

    moment: float
    """``time.monotonic()``."""
    path: str
    """Without the ``/fb/``."""
    kind: str
    """Which of LIMITS it counts for."""
    status: int
    """What was answered."""


@dataclass
class Fault:
    """An answer to give instead of the real one, once."""

    status: int = 500
    body: str | bytes = '{"status":"error","message":"Internal error"}'
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    """Seconds before the answer."""
    applied: bool = False
    """Whether the request is carried out all the same."""
    dropped: bool = False
    """Whether the connection is closed without an answer."""


class ManyChatSandbox:
    """The API on ``http://127.0.0.1:<port>``; a context manager that serves while it is entered.

    Args:
        tokens: the accounts, one for each token.
        host: the interface.
        port: 0 for any free one.
        clearing: how a field's value is cleared, which the documentation leaves open.
        limits: calls a second by kind, LIMITS by default.
    """

    def __init__(
        self,
        tokens: Iterable[str] = (DEFAULT_TOKEN,),
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        clearing: Clearing = "null",
        limits: dict[str, int] | None = None,
    ) -> None:
        self.accounts = {token: Account(int(token.partition(":")[0]), clearing) for token in tokens}
        self.limits = limits or LIMITS
        self.calls: list[Call] = []
        self._faults: dict[str, deque[Fault]] = {}
        self._recent: dict[tuple[str, str], deque[float]] = {}
        self._lock = threading.Lock()
        self._server = _Server((host, port), _Handler)
        self._server.sandbox = self
        self.url = f"http://{host}:{self._server.server_port}"

    @property
    def account(self) -> Account:
        """The first account."""
        return next(iter(self.accounts.values()))

    def serve(self) -> None:
        """Serves until :meth:`close` or Ctrl-C."""
        self._server.serve_forever(poll_interval=0.1)

    def close(self) -> None:
        """Stops serving."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve, name="manychat-sandbox", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fail_next(self, path: str, *faults: Fault) -> None:
        """The next calls of ``path`` (such as ``subscriber/addTag``) get these answers, one each."""
        with self._lock:
            self._faults.setdefault(path, deque()).extend(faults)

    def busiest(self, kind: str, window: float = 1.0) -> int:
        """The most calls of ``kind`` that came within any ``window`` seconds."""
        moments = sorted(call.moment for call in self.calls if call.kind == kind)
        most = start = 0
        for end, moment in enumerate(moments):
            while moments[start] <= moment - window:
                start += 1
            most = max(most, end - start + 1)
        return most

    def state(self) -> dict[str, Any]:
        """Tags, fields and contacts of every account, by page id."""
        return {
            str(account.page_id): {
                "tags": account.call("GET", "page/getTags", {}),
                "fields": account.call("GET", "page/getCustomFields", {}),
                "contacts": [
                    account.call("GET", "subscriber/getInfo", {"subscriber_id": one})
                    for one in list(account.subscribers)
                ],
            }
            for account in self.accounts.values()
        }

    def answer(self, method: str, path: str, token: str, args: dict[str, Any]) -> tuple[Fault | None, int, Any]:
        """What to do with one request: a fault to play, the status, the body (bytes are HTML)."""
        now = time.monotonic()
        kind = _kind(method, path)
        account = self.accounts.get(token)
        with self._lock:
            waiting = self._faults.get(path)
            fault = waiting.popleft() if waiting else None
            allowed = account is None or self._within_limit(token, kind, now)
        if account is None:
            status, body = 401, {"status": "error", "message": "Wrong token"}
        elif not allowed:
            status, body = 429, {"status": "error", "message": "Too many requests"}
        elif fault is not None and not fault.applied:
            status, body = fault.status, {}
        else:
            status, body = _run(account, method, path, args)
        self.calls.append(Call(now, path, kind, fault.status if fault else status))
        return fault, status, body

    def _within_limit(self, token: str, kind: str, now: float) -> bool:
        recent = self._recent.setdefault((token, kind), deque())
        while recent and recent[0] <= now - 1.0:
            recent.popleft()
        if len(recent) >= self.limits[kind]:
            return False
        recent.append(now)
        return True


def _kind(method: str, path: str) -> str:
    if path == "subscriber/findBySystemField":
        return "find"
    if path == "sending/sendFlow":
        return "send"
    return "page" if method == "GET" and path.startswith("page/") else "other"


def _run(account: Account, method: str, path: str, args: dict[str, Any]) -> tuple[int, Any]:
    try:
        return 200, {"status": "success", "data": account.call(method, path, args)}
    except LookupError:
        return 404, _NOT_FOUND.encode()
    except ApiFault as fault:
        return 400, {"status": "error", "message": "Validation error", "details": {"messages": fault.messages}}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    sandbox: ManyChatSandbox

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: _Server

    def do_GET(self) -> None:  # http.server calls it so
        """The query is the arguments."""
        parts = urlsplit(self.path)
        if parts.path == "/sandbox/state":
            self._send(200, json.dumps(self.server.sandbox.state(), indent=2).encode(), "application/json", {})
        else:
            self._answer("GET", parts.path, dict(parse_qsl(parts.query, keep_blank_values=True)))

    def do_POST(self) -> None:  # http.server calls it so
        """The JSON body is the arguments."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            args = json.loads(body or b"{}")
        except ValueError:
            args = None
        self._answer("POST", urlsplit(self.path).path, args if isinstance(args, dict) else {})

    def _answer(self, method: str, path: str, args: dict[str, Any]) -> None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        fault, status, body = self.server.sandbox.answer(method, path.removeprefix("/fb/"), token, args)
        headers: dict[str, str] = {}
        if fault is not None:
            time.sleep(fault.delay)
            if fault.dropped:
                self.close_connection = True
                return
            status, body, headers = fault.status, fault.body, fault.headers
        if isinstance(body, bytes):
            self._send(status, body, "text/html; charset=utf-8", headers)
        else:
            text = body if isinstance(body, str) else json.dumps(body)
            self._send(status, text.encode(), "application/json", headers)

    def _send(self, status: int, body: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # http.server names it so
        """Nothing: the sandbox keeps its calls in ``calls``."""
