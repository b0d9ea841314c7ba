"""A test double of ManyChat's public API over HTTP, with its endpoints, limits, errors and quirks.

Known differences: it sends no messages, and accounts exist in memory only. ``GET /sandbox/state`` shows them.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from rqjobs.testing.sandbox.manychat_account import Account, ApiFault, Clearing
from rqjobs.testing.sandbox.server import LocalServer, Request

LIMITS = {"page": 100, "find": 50, "send": 20, "other": 10}
"""Calls per second and token, by the kind of call."""

DEFAULT_TOKEN = "1000:sandbox"  # noqa: S105  # opens nothing but the sandbox
"""The token that ``rqjobs sandbox manychat`` accepts by default."""

_NOT_FOUND = "<!DOCTYPE html><html><head><title>Page not found</title></head><body>" + "<p></p>" * 5500 + "</body>"


class Call(NamedTuple):
    """One received request."""

    moment: float
    """The time of arrival (``time.monotonic()``)."""
    path: str
    """The path without ``/fb/``."""
    kind: str
    """The key of LIMITS under which it counts."""
    status: int
    """The HTTP status of the response."""


@dataclass
class Fault:
    """A scripted response, sent once instead of the real one."""

    status: int = 500
    body: str | bytes = '{"status":"error","message":"Internal error"}'
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    """Seconds before the response."""
    applied: bool = False
    """Whether the request is executed despite the fault."""
    dropped: bool = False
    """Whether the connection is closed without a response."""


class ManyChatSandbox(LocalServer):
    """The API on ``http://127.0.0.1:<port>``: a context manager, which serves inside its block.

    Args:
        tokens: the tokens, each of one account.
        host: the address to listen on.
        port: the port; 0 for any free one.
        clearing: how a field's value is cleared, which the documentation leaves open.
        limits: calls per second by kind; by default LIMITS.
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
        self.listen(host, port)

    @property
    def account(self) -> Account:
        """The first account."""
        return next(iter(self.accounts.values()))

    def fail_next(self, path: str, *faults: Fault) -> None:
        """Scripts the next calls of ``path`` (such as ``subscriber/addTag``) to get these responses, one each."""
        with self._lock:
            self._faults.setdefault(path, deque()).extend(faults)

    def busiest(self, kind: str, window: float = 1.0) -> int:
        """Returns the most calls of ``kind`` within any ``window`` seconds."""
        moments = sorted(call.moment for call in self.calls if call.kind == kind)
        most = start = 0
        for end, moment in enumerate(moments):
            while moments[start] <= moment - window:
                start += 1
            most = max(most, end - start + 1)
        return most

    def state(self) -> dict[str, Any]:
        """Returns tags, fields and contacts of every account, by page id."""
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

    def handle(self, request: Request) -> None:
        """Responds to one request; its arguments are the query of a GET, or a JSON body."""
        parts, body = urlsplit(request.path), request.read()
        if parts.path == "/sandbox/state":
            request.answer(200, json.dumps(self.state(), indent=2).encode(), {"Content-Type": "application/json"})
            return
        args = dict(parse_qsl(parts.query, keep_blank_values=True)) if request.command == "GET" else _object(body)
        token = (request.headers.get("Authorization") or "").removeprefix("Bearer ")
        fault, status, answer = self._answer(request.command, parts.path.removeprefix("/fb/"), token, args)
        headers: dict[str, str] = {}
        if fault is not None:
            time.sleep(fault.delay)
            if fault.dropped:
                request.hang_up()
                return
            status, answer, headers = fault.status, fault.body, fault.headers
        if isinstance(answer, bytes):
            request.answer(status, answer, {"Content-Type": "text/html; charset=utf-8", **headers})
        else:
            text = answer if isinstance(answer, str) else json.dumps(answer)
            request.answer(status, text.encode(), {"Content-Type": "application/json", **headers})

    def _answer(self, method: str, path: str, token: str, args: dict[str, Any]) -> tuple[Fault | None, int, Any]:
        """Returns the scripted fault for one request or None, the status, and the body (bytes are HTML)."""
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


def _object(body: bytes) -> dict[str, Any]:
    try:
        args = json.loads(body or b"{}")
    except ValueError:
        args = None
    return args if isinstance(args, dict) else {}


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
