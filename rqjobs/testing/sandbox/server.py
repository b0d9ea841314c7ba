"""An HTTP server on loopback for whoever plays somebody else's API."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class Request(BaseHTTPRequestHandler):
    """One request, and its answer. Connections are kept; nothing is logged."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: _Server

    def read(self) -> bytes:
        """The body."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def named_headers(self) -> dict[str, str]:
        """The headers by lower-case name."""
        return {name.lower(): value for name, value in self.headers.items()}

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """Answers; whoever asked may have gone."""
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

    def hang_up(self) -> None:
        """Closes the connection without an answer."""
        self.close_connection = True

    def do_GET(self) -> None:
        """Hands the request on."""
        self.server.played.handle(self)

    do_POST = do_GET  # noqa: N815  # http.server names it so

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # http.server names it so
        """Nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    played: LocalServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores the error of a client that closed its connection."""


class LocalServer:
    """Listens from :meth:`listen` on, and serves while it is entered. Subclasses say in :meth:`handle` what."""

    _http: _Server
    url: str
    """Where it is, once it listens."""

    def listen(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Takes the port; 0 for any free one.

        Raises:
            OSError: somebody else has it.
        """
        self._http = _Server((host, port), Request)
        self._http.played = self
        self.url = f"http://{host}:{self._http.server_port}"

    def handle(self, request: Request) -> None:
        """Answers one request, in a thread of its connection."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), name=type(self).__name__, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
