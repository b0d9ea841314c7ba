"""Sends DNS queries by c-ares, in its own thread: hundreds at once, each with a time limit.

c-ares reads /etc/resolv.conf (servers, search domains, ndots), /etc/hosts and their order in /etc/nsswitch.conf, and
queries IPv4 and IPv6 addresses. Other sources of nsswitch (mDNS, NIS, LDAP) are not used.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

_TIMEOUT, _TRIES = 1.5, 2
"""Seconds until c-ares repeats a query, and the number of tries. Each further wait may be twice as long."""
LIMIT = 5.0
"""Seconds after which a query counts as unanswered, even if c-ares still waits."""
_CHECK_LIMIT = 2.0
_NS = 2  # the type of a query for name servers
_LONGEST_SLEEP = 60.0
_NO_DATA, _NOT_FOUND, _BAD_NAME, _BAD_STRING, _NO_SOCKET = 1, 4, 8, 17, -1  # c-ares' codes
_NO_SUCH = {_NOT_FOUND: "it does not exist", _NO_DATA: "it has no address"}

Addresses = tuple[tuple[int, str], ...]
"""The addresses, each with its address family."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one query, or the reason that there is none."""

    addresses: Addresses = ()
    ttl: float = 0.0
    """Seconds for which the answer may be cached; 0 if it is not from a name server (/etc/hosts)."""
    error: str = ""
    final: bool = False
    """Whether the name servers answered that there is no address; otherwise they gave no usable answer."""


class Resolver:
    """c-ares and its thread, which starts with the first call. Other threads may use only :meth:`call`."""

    def __init__(self, nameservers: Sequence[str] = ()) -> None:
        """Takes the addresses of name servers, with ``:port``; by default those of /etc/resolv.conf."""
        self._nameservers = tuple(nameservers)
        self._calls: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._started = False
        self._channel: Any = None  # of c-ares, made for the first name
        self._ends = threading.Event()

    def call(self, function: Callable[[], object]) -> None:
        """Runs ``function`` on the thread."""
        if not self._started:
            with self._lock:
                if not self._started:
                    self._start()
                    self._started = True
        self._calls.put(function)
        with contextlib.suppress(OSError):  # the thread is awake already, or has ended
            self._writer.send(b"x")

    def close(self) -> None:
        """Ends the thread; open queries get no answer."""
        if self._started:
            self.call(self._ends.set)

    def call_later(self, seconds: float, function: Callable[[], object]) -> None:
        """Runs ``function`` after ``seconds``; to be called on the thread, and runs there."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), function))

    def look_up(self, host: str, done: Callable[[Answer], object]) -> None:
        """Calls ``done`` with the addresses of ``host`` within ``LIMIT`` seconds; to be called on the thread."""
        import pycares

        once = self._once(done)
        self.call_later(LIMIT, partial(once, Answer(error="its name servers do not answer")))

        def answered(found: Any, error: int | None) -> None:
            # If the port is closed, c-ares calls back inside getaddrinfo, and ``done`` may look up more names.
            self.call_later(0, partial(_read, once, found, error))

        try:
            self._channel.getaddrinfo(host, None, type=socket.SOCK_STREAM, callback=answered)
        except ValueError as error:  # not a valid name for c-ares
            self.call_later(0, partial(once, Answer(error=str(error), final=True)))
        except pycares.AresError as error:  # the query could not be sent
            self.call_later(0, partial(once, Answer(error=str(error))))

    def check(self, done: Callable[[bool], object], *, again: bool) -> None:
        """Calls ``done`` with whether our own name servers answer at all; to be called on the thread.

        With ``again``, after a check without an answer, /etc/resolv.conf is read again. The query is for a top-level
        domain that does not exist, a new one each time, so that no cache can answer it: an answer also shows that our
        name servers reach others.
        """
        if again:  # a new channel reads it; c-ares' own function for that, in its own thread, sometimes does not return
            before, self._channel = self._channel, self._new_channel()
            before.cancel()
            before.close()
        once = self._once(done)
        self.call_later(_CHECK_LIMIT, partial(once, False))

        def answered(_result: object, error: int | None) -> None:
            self.call_later(0, partial(once, error is None or error in _NO_SUCH))

        import pycares

        try:
            self._channel.query(f"{secrets.token_hex(8)}.", _NS, callback=answered)
        except pycares.AresError:  # the query could not be sent, for example to a closed port
            self.call_later(0, partial(once, False))

    def _start(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._reader, selectors.EVENT_READ)
        self._channel = self._new_channel()
        threading.Thread(target=self._run, name="rqjobs-names", daemon=True).start()

    def _new_channel(self) -> Any:
        import pycares

        servers = self._nameservers or None
        return pycares.Channel(timeout=_TIMEOUT, tries=_TRIES, servers=servers, sock_state_cb=self._watch)

    def _run(self) -> None:
        while not self._ends.is_set():
            _run_safely(self._turn)
        self._channel.close()
        for thing in (self._selector, self._reader, self._writer):
            thing.close()

    def _turn(self) -> None:
        wait = self._channel.timeout(_LONGEST_SLEEP)
        if self._timers:
            wait = min(wait, max(0.0, self._timers[0][0] - time.monotonic()))
        ready = self._selector.select(wait)
        for key, events in ready:
            if key.fileobj is self._reader:
                self._drain()
            else:
                read = key.fd if events & selectors.EVENT_READ else _NO_SOCKET
                write = key.fd if events & selectors.EVENT_WRITE else _NO_SOCKET
                self._channel.process_fd(read, write)
        if not ready:
            self._channel.process_fd(_NO_SOCKET, _NO_SOCKET)  # handles timeouts
        while self._timers and self._timers[0][0] <= time.monotonic():
            _run_safely(heapq.heappop(self._timers)[2])

    def _watch(self, fd: int, readable: bool, writable: bool) -> None:
        """c-ares' callback: watch ``fd`` for reading and writing, or stop watching it."""
        if self._ends.is_set():  # the channel is being closed, in a thread of pycares
            return
        events = (selectors.EVENT_READ if readable else 0) | (selectors.EVENT_WRITE if writable else 0)
        if fd not in self._selector.get_map():
            if events:
                self._selector.register(fd, events)
        elif events:
            try:
                self._selector.modify(fd, events)
            except OSError:  # the socket was closed, and another one has its number
                self._selector.unregister(fd)
                self._selector.register(fd, events)
        else:
            self._selector.unregister(fd)

    def _once(self, function: Callable[[Any], object]) -> Callable[[Any], None]:
        """Returns ``function`` wrapped so that only the first call counts, and none after the thread has ended."""
        left = [function]

        def call(argument: Any) -> None:
            if left and not self._ends.is_set():
                left.pop()(argument)

        return call

    def _drain(self) -> None:
        self._reader.recv(65536)
        while True:
            try:
                function = self._calls.get_nowait()
            except Empty:
                return
            _run_safely(function)


def _run_safely(function: Callable[[], object]) -> None:
    try:
        function()
    except Exception:  # an error for one name must not end the thread for all names
        logging.getLogger("rqjobs").exception("resolving a name failed")


def _read(done: Callable[[Answer], object], found: Any, error: int | None) -> None:
    if error is None:
        nodes = [(int(node.family), _text(node.addr[0]), float(node.ttl)) for node in found.nodes]
        if nodes:
            addresses = tuple((family, address) for family, address, _ttl in nodes)
            done(Answer(addresses, min(ttl for _family, _address, ttl in nodes)))
            return
        error = _NO_DATA
    if error in _NO_SUCH:
        done(Answer(error=_NO_SUCH[error], final=True))
    elif error in (_BAD_NAME, _BAD_STRING):
        done(Answer(error="it is no name that the DNS can hold", final=True))
    else:
        import pycares.errno

        done(Answer(error=_text(pycares.errno.strerror(error))))


def _text(address: bytes | str) -> str:
    return address.decode() if isinstance(address, bytes) else address
