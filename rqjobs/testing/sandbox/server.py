"""The HTTP server on loopback that all test doubles share."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class Request(BaseHTTPRequestHandler):
    """One request and its response. Connections are kept open; nothing is logged."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: _Server

    def read(self) -> bytes:
        """Returns the body."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def named_headers(self) -> dict[str, str]:
        """Returns the headers by name, in lower case."""
        return {name.lower(): value for name, value in self.headers.items()}

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """Sends the response; ignores a client that has closed its connection."""
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

    def hang_up(self) -> None:
        """Closes the connection without a response."""
        self.close_connection = True

    def do_GET(self) -> None:
        """Passes the request to the test double."""
        self.server.test_double.handle(self)

    do_POST = do_GET  # noqa: N815  # http.server names it so

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # http.server names it so
        """Logs nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    test_double: LocalServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores the error of a client that closed its connection."""


class LocalServer:
    """Listens after :meth:`listen`, and serves inside its block. Subclasses implement :meth:`handle`."""

    _http: _Server
    url: str
    """The URL, set by :meth:`listen`."""

    def listen(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Opens the port; 0 for any free one.

        Raises:
            OSError: another process uses the port.
        """
        self._http = _Server((host, port), Request)
        self._http.test_double = self
        self.url = f"http://{host}:{self._http.server_port}"

    def handle(self, request: Request) -> None:
        """Responds to one request; called in the thread of its connection."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), name=type(self).__name__, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
