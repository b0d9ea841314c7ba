"""A proxy before Redis that loses replies: the request arrives, its answer does not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Proxy:
    """Listens on a port of its own and passes everything on to Redis' socket."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self.losses = 0
        """How many replies to scripts are still to be lost."""
        self.lost = 0
        self.on_loss: Callable[[], None] = lambda: None
        """Called when a script has run and before its caller sees the connection end."""

    def serve(self) -> None:
        """Accepts connections until :meth:`close`."""
        while True:
            try:
                outer, _ = self._listener.accept()
            except OSError:
                return
            inner = socket.socket(socket.AF_UNIX)
            try:
                inner.connect(self._path)
            except OSError:
                outer.close()
                continue
            self._open |= {outer, inner}
            running_script = threading.Event()
            for pump in (self._requests, self._replies):
                threading.Thread(target=pump, args=(outer, inner, running_script), daemon=True).start()

    def _requests(self, outer: socket.socket, inner: socket.socket, running_script: threading.Event) -> None:
        with suppress(OSError):
            while data := outer.recv(65536):
                if b"EVALSHA" in data:
                    running_script.set()
                inner.sendall(data)
        self._end(outer, inner)

    def _replies(self, outer: socket.socket, inner: socket.socket, running_script: threading.Event) -> None:
        with suppress(OSError):
            while data := inner.recv(65536):
                if self.losses > 0 and running_script.is_set() and not data.startswith(b"-"):
                    self.losses -= 1
                    self.lost += 1
                    self.on_loss()
                    break
                running_script.clear()
                outer.sendall(data)
        self._end(outer, inner)

    def cut(self) -> None:
        """Ends every connection."""
        for end in list(self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _end(self, *ends: socket.socket) -> None:
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
            self._open.discard(end)

    def close(self) -> None:
        """Ends every connection and accepts no more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()


@contextmanager
def proxy_before(redis_url: str) -> Iterator[Proxy]:
    """A proxy before the Redis at this ``unix://`` URL."""
    proxy = Proxy(redis_url.removeprefix("unix://"))
    thread = threading.Thread(target=proxy.serve, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join(5)
