"""Limits for wrong passwords: growing waits for each client, and for all unknown clients together.

An attempt counts as wrong before its password is compared, and is uncounted if it was right, so that many attempts at
the same moment are not all admitted. Attempts during a wait are refused without a comparison, and do not extend the
wait. A browser that has logged in before has a device cookie and is counted only by that: attackers behind the same
proxy, or with many addresses, cannot lock it out. (OWASP describes device cookies.) The counts are in the memory of
this process; a restart clears them.
"""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_CLIENTS = 2000
"""The most clients with a count of their own. Others are still counted with all unknown clients."""
_DIRECT = ("127.0.0.1", "::1")
"""This machine, or a tunnel to it, without a proxy. It is not counted with all unknown clients, so that an operator
with a shell on the machine can log in during an attack from many addresses."""


@dataclass(frozen=True)
class Rule:
    """The waits of a client after wrong passwords."""

    free: int
    """The number of wrong passwords before the first wait."""
    first: float
    """Seconds of the first wait; each further wrong password doubles it."""
    longest: float
    """Seconds of the longest wait; also the time after which one wrong password is uncounted."""


ONE = Rule(free=10, first=30, longest=300)
"""For one client: ten passwords at once, then in the long run one in five minutes."""
ALL = Rule(free=50, first=5, longest=60)
"""For all unknown clients: fifty passwords at once, in the long run one per minute, so 1,440 per day in total."""

Counted = tuple[tuple[str, Rule], ...]
"""The names under which an attempt is counted, each with its rule."""


def counted_as(kind: str, address: str | None, *, device: str | None = None, forwarded: bool = False) -> Counted:
    """Returns the names under which a client's attempts are counted, each with its rule.

    Args:
        kind: ``people`` or ``machines``, counted separately: a scraper with an old password must not lock people out.
        address: the client's address; an IPv6 client is counted by its network of 64 bits, which is one household's.
        device: the id in a device cookie with a valid signature.
        forwarded: whether a trusted proxy has reported ``address``.
    """
    if device is not None:
        return ((f"{kind} device {device}", ONE),)
    own = ((f"{kind} {_network(address)}", ONE),)
    return own if address in _DIRECT and not forwarded else (*own, (f"{kind} all", ALL))


def _network(address: str | None) -> str:
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        mapped = parsed.ipv4_mapped
        return str(mapped or ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
    return str(parsed)


class _Count:
    """The wrong passwords of one name, at the time of the last one."""

    def __init__(self) -> None:
        self.wrong = 0.0
        self.last = -math.inf

    def wait(self, rule: Rule, now: float) -> float:
        over = math.ceil(self.wrong) - rule.free
        return 0.0 if over < 0 else max(0.0, self.last - now + min(rule.longest, rule.first * 2.0 ** min(over, 30)))

    def add(self, rule: Rule, now: float) -> None:
        forgotten = (now - self.last) / rule.longest
        self.wrong = max(0.0, self.wrong - forgotten) + 1
        self.last = now


class LoginLimits:
    """The counts of one dashboard. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts with no wrong password; ``clock`` returns seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: OrderedDict[str, _Count] = OrderedDict()
        self._totals: dict[str, _Count] = {}

    def admit(self, counted: Counted) -> float:
        """Counts an attempt as wrong and returns 0; during a wait returns its remaining seconds."""
        with self._lock:
            now = self._clock()
            counts = [(self._count(name, rule), rule) for name, rule in counted]
            wait = max(count.wait(rule, now) for count, rule in counts)
            if wait == 0:
                for count, rule in counts:
                    count.add(rule, now)
            return wait

    def take_back(self, counted: Counted) -> None:
        """Uncounts an admitted attempt whose password was right."""
        with self._lock:
            for name, rule in counted:
                count = self._count(name, rule)
                count.wrong = max(0.0, count.wrong - 1)

    def _count(self, name: str, rule: Rule) -> _Count:
        if rule is ALL:  # one for each kind, never dropped in favour of single clients
            return self._totals.setdefault(name, _Count())
        count = self._counts.setdefault(name, _Count())
        self._counts.move_to_end(name)
        while len(self._counts) > _CLIENTS:
            self._counts.popitem(last=False)
        return count
