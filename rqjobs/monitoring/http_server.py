"""An HTTP server with limits, for the dashboard and a worker's health port: waitress with bounded connections.

One thread reads all connections and passes complete requests to a few other threads, so a connection without a complete
request uses only a file descriptor. When all connections are in use, a new one replaces the one that has waited longest
without a complete request: a browser completes its request in milliseconds, an attacker that holds connections open
never does. So such connections delay no page, and no time limit has to expire first.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer

from rqjobs.errors import RQJobsError

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
"""A WSGI app."""

_REQUEST_SECONDS = 20.0
"""The most time from the first byte of a request to its last; the dashboard's largest forms have 4 MiB."""
_ANSWER_SECONDS = 60.0
"""The longest time that a client may take to read a complete response."""
_IDLE_SECONDS = 60.0
"""The longest time that a connection stays open between two requests."""
_STOP_SECONDS = 10.0
"""The longest time that a stop waits for running requests."""
_CONNECTIONS = 400
"""The most open connections; fewer if the process may not open that many files."""
_AT_ONCE = 50
"""The most connections accepted before the open ones are served again."""
_BODY_BYTES = 5 * 1024 * 1024
_HEADER_BYTES = 64 * 1024


class _Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no annotations
    """One connection."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.since = time.monotonic()
        """When it began to wait: for a request, for the rest of one, or for the client to read the response."""
        self.answered = False
        super().__init__(*args, **options)

    def received(self, data: bytes) -> bool:
        if self.request is None and self.answered:
            self.since = time.monotonic()  # the first byte of a request; later bytes do not extend its time
        return bool(super().received(data))

    def service(self) -> None:
        super().service()
        self.answered = True
        self.since = time.monotonic()

    def waits_for_client(self) -> bool:
        return not self.will_close and (not self.requests or self.total_outbufs_len > 0)

    def is_late(self, now: float) -> bool:
        if self.total_outbufs_len:
            limit = _ANSWER_SECONDS
        else:
            limit = _REQUEST_SECONDS if self.request is not None or not self.answered else _IDLE_SECONDS
        return self.waits_for_client() and now - self.since > limit


class LimitedServer(TcpWSGIServer):  # type: ignore[misc]
    """A server that listens; its methods have the same names as those of :class:`socketserver.BaseServer`."""

    channel_class = _Channel

    def __init__(self, app: App, host: str, port: int, *, threads: int, connections: int = _CONNECTIONS) -> None:
        """Starts to listen.

        Args:
            app: the WSGI app.
            host: an address or name.
            port: the port; 0 for any free one.
            threads: the number of threads that run the app.
            connections: the most open connections.

        Raises:
            RQJobsError: the port is in use.
        """
        self._most = max(10, min(connections, (_most_files() - 64) // 2))
        self._closing: set[_Channel] = set()
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._ended.set()
        listening = _listen(host, port)
        options = {
            "threads": threads,
            "connection_limit": 1_000_000,  # this class limits connections
            "cleanup_interval": 1,
            "max_request_header_size": _HEADER_BYTES,
            "max_request_body_size": _BODY_BYTES,
            "outbuf_high_watermark": 64 * 1024 * 1024,  # pages are smaller, so no thread waits for a slow client
            "clear_untrusted_proxy_headers": False,  # the app checks them
            "log_socket_errors": False,  # clients that disconnect are normal
            "asyncore_use_poll": True,  # select does not support file descriptors above 1,023
            "ident": "rqjobs",
        }
        super().__init__(
            app,
            _sock=listening,
            bind_socket=False,
            sockinfo=(listening.family, listening.type, listening.proto, listening.getsockname()),
            adj=Adjustments(**options),
        )
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # it logs requests that wait for a thread

    @property
    def server_port(self) -> int:
        """The port on which it listens."""
        return int(self.effective_port)

    def serve_forever(self) -> None:
        """Serves until :meth:`shutdown`; then completes running requests, for at most ten seconds."""
        self._ended.clear()
        try:
            while not self._stopping.is_set():
                self._turn()
            wasyncore.dispatcher.close(self)  # no new connections
            deadline = time.monotonic() + _STOP_SECONDS
            while self._answering() and time.monotonic() < deadline:
                self._turn()
        finally:
            self.task_dispatcher.shutdown(timeout=1)
            wasyncore.close_all(self._map)
            self._ended.set()

    def ask_to_stop(self) -> None:
        """Makes :meth:`serve_forever` return. A signal handler may call it."""
        self._stopping.set()
        self.pull_trigger()

    def shutdown(self) -> None:
        """Stops the server, and waits until :meth:`serve_forever` has returned in its thread."""
        if not self._ended.is_set():
            self.ask_to_stop()
            self._ended.wait()

    def server_close(self) -> None:
        """Closes the port and all connections."""
        self.shutdown()
        wasyncore.close_all(self._map)

    def _turn(self) -> None:
        # Between two polls, so that no event of a closed file descriptor is pending. `will_close` alone
        # would wait until the client accepts data.
        for channel in self._closing:
            channel.will_close = True
            channel.handle_close()
        self._closing.clear()
        wasyncore.loop(timeout=1, map=self._map, use_poll=True, count=1)

    def _answering(self) -> bool:
        channels = list(self.active_channels.values())
        for channel in channels:
            if not channel.requests and not channel.total_outbufs_len:
                self._closing.add(channel)
        return any(channel.requests or channel.total_outbufs_len for channel in channels)

    def handle_accept(self) -> None:
        """Accepts waiting connections; each replaces an older one if there are too many."""
        for _ in range(_AT_ONCE):
            before = len(self.active_channels)
            super().handle_accept()
            if len(self.active_channels) == before:
                return
            if before >= self._most:
                self._close_one()

    def _close_one(self) -> None:
        channels = (channel for channel in self.active_channels.values() if channel not in self._closing)
        waiting = [channel for channel in channels if channel.waits_for_client()]
        if waiting:
            self._closing.add(min(waiting, key=lambda channel: channel.since))

    def maintenance(self, now: float) -> None:  # noqa: ARG002  # waitress' clock may go back
        """Closes connections that have exceeded a time limit."""
        moment = time.monotonic()
        self._closing.update(channel for channel in self.active_channels.values() if channel.is_late(moment))


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise RQJobsError(f"{host} cannot be listened at: {error.strerror}") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        listening.close()
        text = f"port {port} of {host} cannot be used: {error.strerror}; choose another with --port"
        raise RQJobsError(text) from error
    return listening


def _most_files() -> int:
    """Returns the most files that this process may have open."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return 1_000_000
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft > 0 else 1_000_000
