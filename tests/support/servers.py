"""Real web servers of the example apps, and requests to them."""

from __future__ import annotations

import contextlib
import http.cookiejar
import json
import random
import socket
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, NamedTuple

from tests.support.workers import eventually


def free_port() -> int:
    """A port that nobody listens on, and that no system gives to whoever asks for any: it stays free until it is used.

    Linux gives them from 32768 on, others from 49152 on.
    """
    while True:
        port = random.SystemRandom().randrange(12_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Answer(NamedTuple):
    status: int
    headers: Any
    text: str
    url: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Browser:
    """Keeps cookies and follows redirects."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.cookies = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies))

    def get(self, path: str, **headers: str) -> Answer:
        return self._send(urllib.request.Request(self.base + path, headers=headers))

    def post(self, path: str, data: Any = None, form: dict[str, str] | None = None, **headers: str) -> Answer:
        if form is not None:
            body = urllib.parse.urlencode(form).encode()
        else:
            body = json.dumps(data).encode()
            headers["Content-Type"] = "application/json"
        return self._send(urllib.request.Request(self.base + path, data=body, headers=headers, method="POST"))

    def wait(self) -> Browser:
        """Until the server answers."""

        def answers() -> bool:
            try:
                self.get("/health")
            except (urllib.error.URLError, OSError):
                return False
            return True

        eventually(answers)
        return self

    def _send(self, request: urllib.request.Request) -> Answer:
        try:
            with self._opener.open(request, timeout=60) as answer:
                return Answer(answer.status, answer.headers, answer.read().decode(), answer.url)
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read().decode(), error.url)
