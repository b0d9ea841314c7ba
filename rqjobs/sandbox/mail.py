"""SendGrid's and Resend's APIs over HTTP, as their documentation says them: checked, counted, scripted to fail."""

from __future__ import annotations

import contextlib
import json
import threading
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

_SENDGRID, _RESEND = "/v3/mail/send", "/emails"
_SENDGRID_RESERVED = {"x-sg-id", "x-sg-eid", "received", "dkim-signature", "content-type", "content-transfer-encoding",
                      "to", "from", "subject", "reply-to", "cc", "bcc"}  # fmt: skip
_TAG_LETTERS = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
_MAX_TO = 50


@dataclass(frozen=True)
class Script:
    """What the next request is answered with, instead of what it deserves."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    accept: bool = False
    """The mail is taken all the same."""
    hang_up: bool = False
    """The connection is closed without an answer."""
    before: Callable[[], object] | None = None
    """Called before anything is answered."""


@dataclass(frozen=True)
class Sent:
    """A mail that went out."""

    path: str
    headers: dict[str, str]
    """By lower-case name."""
    payload: dict[str, Any]
    id: str


@dataclass
class MailAPI:
    """Both APIs on a free port of 127.0.0.1. Use it as a context manager; ``url`` is for both ``..._API_URL``."""

    key: str = "test-key"
    sent: list[Sent] = field(default_factory=list)
    requests: int = 0
    script: deque[Script] = field(default_factory=deque)
    """Answers to come; when it is empty, requests get what they deserve."""

    def __enter__(self) -> Self:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                api._handle(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Quiet: what was sent is in ``sent``."""

        self._answers: dict[str, tuple[str, str]] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handle(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in request.headers.items()}
        with self._lock:
            self.requests += 1
            script = self.script.popleft() if self.script else None
        if script is not None and script.before is not None:
            script.before()
        answer: Any
        extra: dict[str, str]
        status, answer, extra = 200, None, {}
        if script is None or script.accept:
            with self._lock:
                status, answer, extra = self._deserved(request.path, headers, body)
        if script is not None:
            status, answer, extra = script.status, script.body, script.headers
        if script is not None and script.hang_up:
            request.close_connection = True
            return
        text = answer if isinstance(answer, bytes) else b"" if answer is None else json.dumps(answer).encode()
        with contextlib.suppress(ConnectionError):  # whoever asked has gone: that is their trouble to sort out
            request.send_response(status)
            for name, value in extra.items():
                request.send_header(name, value)
            request.send_header("content-type", "application/json")
            request.send_header("content-length", str(len(text)))
            request.end_headers()
            request.wfile.write(text)

    def _deserved(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any, dict[str, str]]:
        try:
            payload = json.loads(body)
        except ValueError:
            payload = None
        if path == _SENDGRID:
            return self._sendgrid(headers, payload)
        if path == _RESEND:
            return self._resend(headers, payload, body.decode(errors="replace"))
        return 404, {"statusCode": 404, "message": "Not found", "name": "not_found"}, {}

    def _sendgrid(self, headers: dict[str, str], payload: Any) -> tuple[int, Any, dict[str, str]]:
        if headers.get("authorization") != f"Bearer {self.key}":
            message = "The provided authorization grant is invalid, expired, or revoked"
            return 401, {"errors": [{"message": message, "field": None, "help": None}]}, {}
        faults = sendgrid_faults(payload)
        if faults:
            return 400, {"errors": [{"message": fault, "field": None, "help": None} for fault in faults]}, {}
        made = uuid.uuid4().hex
        self.sent.append(Sent(_SENDGRID, headers, payload, made))
        return 202, None, {"X-Message-Id": made}

    def _resend(self, headers: dict[str, str], payload: Any, body: str) -> tuple[int, Any, dict[str, str]]:
        if headers.get("authorization") != f"Bearer {self.key}":
            return 403, {"statusCode": 403, "message": "API key is invalid", "name": "invalid_api_key"}, {}
        faults = resend_faults(payload)
        if faults:
            return 422, {"statusCode": 422, "message": "; ".join(faults), "name": "validation_error"}, {}
        key = headers.get("idempotency-key")
        if key in self._answers:
            first, made = self._answers[key]
            if first != body:
                message = "Same idempotency key used with a different request payload"
                return 409, {"statusCode": 409, "message": message, "name": "invalid_idempotent_request"}, {}
            return 200, {"id": made}, {}
        made = str(uuid.uuid4())
        if key is not None:
            self._answers[key] = (body, made)
        self.sent.append(Sent(_RESEND, headers, payload, made))
        return 200, {"id": made}, {}


def sendgrid_faults(payload: Any) -> list[str]:
    """What SendGrid would refuse of a Mail Send request."""
    if not isinstance(payload, dict):
        return ["Bad Request"]
    faults = [
        f"{name} is required" for name in ("personalizations", "from", "subject", "content") if not payload.get(name)
    ]
    for people in payload.get("personalizations", []):
        found = [box.get("email", "") for name in ("to", "cc", "bcc") for box in people.get(name, [])]
        if not people.get("to"):
            faults.append("The to array is required for all personalization objects")
        if len({address.lower() for address in found}) != len(found):
            faults.append("Each email address in the personalization block should be unique between to, cc, and bcc")
        faults += [
            "Does not contain a valid address" for address in found if "@" not in address or not address.isascii()
        ]
    types = [part.get("type") for part in payload.get("content", [])]
    if types not in (["text/plain"], ["text/html"], ["text/plain", "text/html"]):
        faults.append("If present, text/plain and text/html may only be provided once, text/plain first")
    if not all(part.get("value") for part in payload.get("content", [])):
        faults.append("The content value must be a string at least one character in length")
    faults += [
        f"{name} is a reserved header" for name in payload.get("headers", {}) if name.lower() in _SENDGRID_RESERVED
    ]
    values = [*payload.get("headers", {}).values(), *payload.get("custom_args", {}).values()]
    if not all(isinstance(value, str) for value in values):
        faults.append("headers and custom_args hold strings")
    if len(payload.get("categories", [])) != len(set(payload.get("categories", []))):
        faults.append("categories must be unique")
    return faults


def resend_faults(payload: Any) -> list[str]:
    """What Resend would refuse of a Send Email request."""
    if not isinstance(payload, dict):
        return ["The request body must be JSON"]
    faults = [f"Missing `{name}` field" for name in ("from", "to", "subject") if not payload.get(name)]
    if not (payload.get("html") or payload.get("text")):
        faults.append("Missing `html` or `text` field")
    to = payload.get("to", [])
    if len(to if isinstance(to, list) else [to]) > _MAX_TO:
        faults.append("The `to` field must not exceed 50 addresses")
    words = [word for tag in payload.get("tags", []) for word in (tag.get("name"), tag.get("value"))]
    if not all(word and set(word) <= _TAG_LETTERS for word in words):
        faults.append("Tags should only contain ASCII letters, numbers, underscores, or dashes")
    return faults
