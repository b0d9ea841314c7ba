"""A test double of SendGrid's and Resend's HTTP APIs: checks and counts mails, and fails when a test scripts it."""

from __future__ import annotations

import json
import threading
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rqjobs.testing.sandbox.server import LocalServer, Request

_SENDGRID, _RESEND = "/v3/mail/send", "/emails"
_SENDGRID_RESERVED = {"x-sg-id", "x-sg-eid", "received", "dkim-signature", "content-type", "content-transfer-encoding",
                      "to", "from", "subject", "reply-to", "cc", "bcc"}  # fmt: skip
_TAG_LETTERS = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
_MAX_TO = 50


@dataclass(frozen=True)
class Script:
    """A scripted response, sent instead of the one that the provider would send."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    accept: bool = False
    """Whether the mail is accepted despite the status."""
    hang_up: bool = False
    """Whether the connection is closed without a response."""
    before: Callable[[], object] | None = None
    """A function to call before the response."""


@dataclass(frozen=True)
class Sent:
    """One accepted mail."""

    path: str
    headers: dict[str, str]
    """The headers by name, in lower case."""
    payload: dict[str, Any]
    id: str


@dataclass
class MailAPI(LocalServer):
    """Both APIs on 127.0.0.1: a context manager, which serves inside its block. ``url`` suits both ``..._API_URL``."""

    key: str = "test-key"
    port: int = 0
    """The port to listen on; 0 for any free port."""
    sent: list[Sent] = field(default_factory=list)
    requests: int = 0
    script: deque[Script] = field(default_factory=deque)
    """The scripted responses to the next requests; without one the response is the provider's."""
    on_sent: Callable[[Sent], None] | None = None
    """Called with each accepted mail."""

    def __post_init__(self) -> None:
        self._answers: dict[str, tuple[str, str]] = {}
        self._lock = threading.Lock()
        self.listen(port=self.port)

    def handle(self, request: Request) -> None:
        """Sends the scripted response, or the one that the provider would send."""
        body, headers = request.read(), request.named_headers()
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
            request.hang_up()
            return
        text = answer if isinstance(answer, bytes) else b"" if answer is None else json.dumps(answer).encode()
        request.answer(status, text, {"Content-Type": "application/json", **extra})

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
        made = self._send(_SENDGRID, headers, payload)
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
        made = self._send(_RESEND, headers, payload)
        if key is not None:
            self._answers[key] = (body, made)
        return 200, {"id": made}, {}

    def _send(self, path: str, headers: dict[str, str], payload: dict[str, Any]) -> str:
        sent = Sent(path, headers, payload, str(uuid.uuid4()))
        self.sent.append(sent)
        if self.on_sent is not None:
            self.on_sent(sent)
        return sent.id


def sendgrid_faults(payload: Any) -> list[str]:
    """Returns the faults for which SendGrid would refuse a Mail Send request."""
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
        names = [box.get("name", "") for name in ("to", "cc", "bcc") for box in people.get(name, [])]
        if any("," in name or ";" in name for name in names):
            faults.append("The name of a recipient cannot contain a semi-colon (;) or a comma (,)")
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
    """Returns the faults for which Resend would refuse a Send Email request."""
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
