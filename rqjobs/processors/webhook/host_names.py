"""Resolves the host names of deliveries without slots and threads, with a cache, and fairly between domains.

- A registered domain has at most four open queries, all domains together 200; domains take turns. A delivery that waits
  for a query has no attempt counted.
- Addresses are used for an hour beyond their time to live while the query for new ones is open or fails. The guard
  checks them before each connection, and again when the socket is opened.
- A failure (no address, or no answer of the name's servers) is cached for half a minute, in which it costs each
  delivery at most one attempt.
- If our own name servers do not answer at all, deliveries to names without cached addresses are held.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import lru_cache, partial

from rqjobs.config.logs import event
from rqjobs.errors import DependencyUnavailable, RetryLater
from rqjobs.processors.webhook.resolver import LIMIT, Addresses, Answer, Resolver
from rqjobs.processors.webhook.transfer import DeliveryFailed

OPEN_OF_A_DOMAIN = 4
OPEN = 200
ENTERED = 8
"""The most deliveries that wait in slots for a name; others are held. Most names are resolved in some milliseconds."""
BELIEVED = (5.0, 300.0)
"""The least and the most seconds for which addresses are fresh; in between it is their time to live."""
USED_BEYOND = 3600.0
"""Seconds for which old addresses are used if there are no new ones (RFC 8767)."""
_PREFERRED = 60.0  # seconds beyond their time to live after which a delivery first waits for new addresses
_PREFERENCE = 1.0  # the most seconds of that wait
REMEMBERED = 30.0
"""Seconds for which a name without an address is cached."""
_HELD = (0.04, 5.0)
"""The least and the most seconds between two checks for a result; in between it is the time waited so far. The least is
short enough that the worker's admission keeps the delivery in memory."""
_HELD_WHILE_AWAY = 0.5
_CHECKS = (1.0, 10.0)  # the least and the most seconds between two checks of our name servers while they do not answer
SCOPE = "names that are not known yet"
"""The part of the queue that is held while our own name servers do not answer."""
AWAY = "no name server answers; see WEBHOOK_NAMESERVERS, or /etc/resolv.conf"
_KEPT = 20_000
_CHARGED = 10_000


class Name:
    """The state of one host name. Only the resolver's thread changes it, except ``charged``."""

    __slots__ = (
        "addresses", "busy", "charged", "domain", "error", "error_until", "fresh_until", "host", "sent", "used_until",
        "waiters", "wanted",
    )  # fmt: skip

    def __init__(self, host: str) -> None:
        self.host = host
        self.domain = registered_domain(host)
        self.addresses: Addresses = ()
        self.fresh_until = self.used_until = 0.0
        self.error = ""
        self.error_until = 0.0
        self.charged: set[str] = set()
        """The jobs for which this error has counted as an attempt."""
        self.busy = False
        """Whether a query for it is open, or waits to be sent."""
        self.sent = False
        self.wanted = time.monotonic()
        """The time at which its query was requested."""
        self.waiters: list[Callable[[], object]] = []


def registered_domain(host: str) -> str:
    """Returns the registered domain, approximately: the last two labels, or three under names such as ``co.uk``."""
    labels = host.rsplit(".", 3)
    short = len(labels) > 2 and len(labels[-1]) == 2 and len(labels[-2]) <= 3  # noqa: PLR2004
    return ".".join(labels[-3:] if short else labels[-2:])


@lru_cache(maxsize=4096)
def literal(host: str) -> tuple[int, str] | None:
    """Returns the address that ``host`` spells in any form of URLs (``127.1``, ``0x7f.1``); None for a name."""
    try:
        address = ipaddress.ip_address(host)
        return (socket.AF_INET if address.version == 4 else socket.AF_INET6), str(address)  # noqa: PLR2004
    except ValueError:
        pass
    try:
        return socket.AF_INET, socket.inet_ntoa(socket.inet_aton(host))
    except (OSError, UnicodeError):
        return None


class Names:
    """The host names of one process. Thread-safe, except the methods marked as those of the resolver's thread."""

    def __init__(self, nameservers: Sequence[str] = ()) -> None:
        self._resolver = Resolver(nameservers)
        self._names: dict[str, Name] = {}
        self._entered: dict[str, float] = {}
        self._lock = threading.Lock()
        self.away_since: float | None = None
        """The time since when our own name servers have not answered, ``time.time()``."""
        self._check_at = 0.0
        self._pause = 0.0
        # Only the resolver's thread uses the following.
        self._open = 0
        self._open_of: dict[str, int] = {}
        self._queues: dict[str, deque[Name]] = {}
        self._turns: deque[str] = deque()
        self._checking = False
        self._check_began = 0.0
        self._answered_at = 0.0
        self._failed: list[tuple[Name, str]] = []
        self._unasked: list[Name] = []

    def close(self) -> None:
        """Ends the resolver's thread."""
        self._resolver.close()

    def is_fresh(self, host: str, addresses: Addresses, now: float) -> bool:
        """Returns whether ``addresses`` are the current ones of ``host``, and still valid.

        ``now`` is ``time.monotonic()``.
        """
        name = self._names.get(host)
        return name is not None and name.addresses is addresses and name.fresh_until > now

    def is_known(self, host: str) -> bool:
        """Returns whether ``host`` has addresses that a delivery can use, fresh or old."""
        name = self._names.get(host)
        return name.used_until > time.monotonic() if name is not None else literal(host) is not None

    def leave(self, job_id: str) -> None:
        """Records that an admitted delivery is not coming, or has its addresses."""
        self._entered.pop(job_id, None)

    def admit(self, host: str, job_id: str) -> tuple[float, str] | None:
        """Checks whether a delivery to ``host`` may use a slot now.

        Returns:
            None if it may, otherwise the seconds to wait and the reason.
        """
        if self.is_known(host):
            return None
        now = time.monotonic()
        name = self._name(host)
        if name.error_until > now:
            return (name.error_until - now, f"{host}: {name.error}") if self._has_paid(name, job_id) else None
        if not name.busy:
            self._resolver.call(partial(self._ask, name, None))
        if self.away_since is not None:
            return max(_HELD_WHILE_AWAY, self._check_at - now), AWAY
        if self._enter(job_id, now):
            return None
        shortest, longest = _HELD
        return min(max(now - name.wanted, shortest), longest), f"the name {host} is being resolved"

    async def addresses(self, host: str, job_id: str, seconds: float) -> Addresses:
        """Returns the addresses of ``host``, not checked by the guard; waits at most ``seconds`` for them.

        Raises:
            DeliveryFailed: it has no address, or there was no answer in time.
            RetryLater: the query is not sent yet, or this delivery has had an attempt counted for the cached failure;
                no attempt is counted.
            DependencyUnavailable: none of our own name servers answers; no attempt is counted.
        """
        name = self._name(host)
        try:
            return await self._find(name, job_id, seconds)
        finally:
            self.leave(job_id)

    async def _find(self, name: Name, job_id: str, seconds: float) -> Addresses:
        now = time.monotonic()
        known = name.used_until > now
        if name.fresh_until > now:
            return name.addresses
        if not known and name.error_until > now:
            raise self._failure(name, job_id)
        if known and now - name.fresh_until < _PREFERRED:
            self._resolver.call(partial(self._ask, name, None))
            return name.addresses
        await self._answer(name, min(seconds, _PREFERENCE if known else 2 * LIMIT))
        now = time.monotonic()
        if name.used_until > now:
            return name.addresses
        if name.error_until > now:
            raise self._failure(name, job_id)
        if self.away_since is not None:
            raise DependencyUnavailable("name servers", AWAY, scope=SCOPE)
        if not name.sent:
            wait = timedelta(seconds=_HELD[1])
            raise RetryLater(wait, f"the name {name.host} waits for its turn to be resolved", counts=False)
        text = f"the name {name.host} was not resolved within {seconds:g} s"
        raise DeliveryFailed("timeout", text, connected=False)

    async def _answer(self, name: Name, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def end() -> None:
            if not done.done():
                done.set_result(None)

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the event loop is closed, so no delivery waits
                loop.call_soon_threadsafe(end)

        self._resolver.call(partial(self._ask, name, wake))
        await asyncio.wait([done], timeout=seconds)

    def _failure(self, name: Name, job_id: str) -> DeliveryFailed | RetryLater:
        text = f"the name {name.host} cannot be resolved: {name.error}"
        if self._has_paid(name, job_id):
            wait = timedelta(seconds=max(1.0, name.error_until - time.monotonic()))
            return RetryLater(wait, text, counts=False)
        name.charged.add(job_id)
        return DeliveryFailed("dns", text, connected=False)

    @staticmethod
    def _has_paid(name: Name, job_id: str) -> bool:
        return job_id in name.charged or len(name.charged) >= _CHARGED

    def _name(self, host: str) -> Name:
        found = self._names.get(host)
        if found is None:
            with self._lock:
                if len(self._names) >= _KEPT:
                    self._forget()
                found = self._names.setdefault(host, Name(host))
        return found

    def _forget(self) -> None:
        """Drops half of the names, first those without addresses."""
        by_use = sorted(self._names.values(), key=lambda name: (name.busy, name.used_until))
        for name in by_use[: _KEPT // 2]:
            self._names.pop(name.host, None)

    def _enter(self, job_id: str, now: float) -> bool:
        with self._lock:
            for other, since in list(self._entered.items()):
                if now - since > 2 * LIMIT:  # the delivery was stopped, or did not come
                    self._entered.pop(other, None)
            if len(self._entered) >= ENTERED:
                return False
            self._entered[job_id] = now
            return True

    # On the resolver's thread

    def _ask(self, name: Name, wake: Callable[[], object] | None) -> None:
        if wake is not None:
            name.waiters.append(wake)
        if name.busy:
            return
        now = time.monotonic()
        if self.away_since is not None and now < self._check_at:
            _wake(name)
            return
        name.busy, name.sent, name.wanted = True, False, now
        if self.away_since is not None or self._checking:
            self._unasked.append(name)
            self._check()
        else:
            self._queue(name)
            self._send()

    def _queue(self, name: Name) -> None:
        queue = self._queues.get(name.domain)
        if queue is None:
            queue = self._queues[name.domain] = deque()
            self._turns.append(name.domain)
        queue.append(name)

    def _send(self) -> None:
        """Sends as many queries as are allowed now; domains take turns."""
        for _ in range(len(self._turns)):
            if self._open >= OPEN:
                return
            domain = self._turns.popleft()
            queue = self._queues[domain]
            while queue and self._open_of.get(domain, 0) < OPEN_OF_A_DOMAIN and self._open < OPEN:
                self._start(queue.popleft())
            if queue:
                self._turns.append(domain)
            else:
                del self._queues[domain]

    def _start(self, name: Name) -> None:
        name.sent = True
        self._open += 1
        self._open_of[name.domain] = self._open_of.get(name.domain, 0) + 1
        self._resolver.look_up(name.host, partial(self._answered, name))

    def _answered(self, name: Name, answer: Answer) -> None:
        self._open -= 1
        left = self._open_of.pop(name.domain) - 1
        if left:
            self._open_of[name.domain] = left
        now = time.monotonic()
        if answer.ttl > 0 or answer.final:
            self._answered_at = now
        if answer.addresses:
            least, most = BELIEVED
            same = set(answer.addresses) == set(name.addresses)
            name.addresses = name.addresses if same else answer.addresses
            name.fresh_until = now + min(max(answer.ttl, least), most)
            name.used_until = name.fresh_until + USED_BEYOND
            name.error_until = 0.0
            self._end(name)
        elif answer.final:
            name.addresses, name.used_until, name.fresh_until = (), 0.0, 0.0
            self._fail(name, answer.error)
        else:
            self._failed.append((name, answer.error))
            self._check()
        self._send()

    def _fail(self, name: Name, error: str) -> None:
        until = time.monotonic() + REMEMBERED
        name.error, name.charged, name.error_until = error, set(), until
        if name.addresses:
            name.fresh_until = until  # its old addresses stay in use
        self._end(name)

    def _end(self, name: Name) -> None:
        name.busy = False
        _wake(name)

    def _check(self) -> None:
        """Checks whether our own name servers answer; if not, the failure is not one of the name."""
        if not self._checking:
            self._checking, self._check_began = True, time.monotonic()
            self._resolver.check(self._checked, again=self.away_since is not None)

    def _checked(self, answers: bool) -> None:
        self._checking = False
        failed, self._failed = self._failed, []
        unasked, self._unasked = self._unasked, []
        if answers or self._answered_at >= self._check_began:
            if self.away_since is not None:
                event(logging.INFO, "name servers answer again", away=round(time.time() - self.away_since, 1))
            self.away_since, self._pause = None, 0.0
            for name, error in failed:
                self._fail(name, error)
            for name in unasked:
                self._queue(name)
            self._send()
            return
        shortest, longest = _CHECKS
        self._pause = min(max(2 * self._pause, shortest), longest)
        self._check_at = time.monotonic() + self._pause
        if self.away_since is None:
            self.away_since = time.time()
            event(logging.WARNING, "no name server answers: deliveries to names that are not cached wait")
        waiting = [name for queue in self._queues.values() for name in queue]
        self._queues.clear()
        self._turns.clear()
        for name in [*(name for name, _error in failed), *unasked, *waiting]:
            self._end(name)


def _wake(name: Name) -> None:
    waiters, name.waiters = name.waiters, []
    for wake in waiters:
        wake()
