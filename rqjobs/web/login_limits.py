"""Limits of wrong passwords: growing waits for each client, and for all strangers together.

A password counts as wrong before it is compared, and is taken back when it was right, so passwords that are sent at
the same moment do not all pass. What is refused during a wait is not compared and does not make the wait longer.

A browser that signed in before has a device cookie, and is counted by that alone: strangers who try passwords, through
the same proxy or from many addresses, do not lock it out. (OWASP describes device cookies.) The counts are kept in
this process; a restart forgets them.
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
"""Clients that are remembered. One that was forgotten is still counted with all strangers."""
_DIRECT = ("127.0.0.1", "::1")
"""The machine itself, or a tunnel to it, without a proxy between. It is not counted with all strangers, so an operator
with a shell on the machine gets in during an attack from many addresses."""


@dataclass(frozen=True)
class Rule:
    """How long a client waits after wrong passwords."""

    free: int
    """Wrong passwords before the first wait."""
    first: float
    """Seconds of the first wait; each further wrong password doubles it."""
    longest: float
    """Seconds of the longest wait, and also those after which one wrong password is forgotten."""


ONE = Rule(free=10, first=30, longest=300)
"""One client: ten passwords at once, in the long run one in five minutes."""
ALL = Rule(free=50, first=5, longest=60)
"""All strangers together: fifty at once, in the long run one a minute, so 1,440 a day from any number of addresses."""

Counted = tuple[tuple[str, Rule], ...]
"""The names under which an attempt is counted, each with its rule."""


def counted_as(kind: str, address: str | None, *, device: str | None = None, forwarded: bool = False) -> Counted:
    """Under which names a client's attempts are counted.

    Args:
        kind: ``people`` or ``machines``: a scraper with an old password must not lock people out.
        address: the client's address; an IPv6 client is its network of 64 bits, all of which one household has.
        device: the id in a device cookie whose signature is right.
        forwarded: whether ``address`` was reported by a trusted proxy.
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
    """The wrong passwords of one name, as of the last one."""

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
    """The counts of one dashboard. Safe to use from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts with no wrong password; ``clock`` returns seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: OrderedDict[str, _Count] = OrderedDict()
        self._totals: dict[str, _Count] = {}

    def admit(self, counted: Counted) -> float:
        """Counts an attempt as wrong and returns 0, or returns the seconds until the next one is admitted."""
        with self._lock:
            now = self._clock()
            counts = [(self._count(name, rule), rule) for name, rule in counted]
            wait = max(count.wait(rule, now) for count, rule in counts)
            if wait == 0:
                for count, rule in counts:
                    count.add(rule, now)
            return wait

    def take_back(self, counted: Counted) -> None:
        """The attempt that was admitted was right."""
        with self._lock:
            for name, rule in counted:
                count = self._count(name, rule)
                count.wrong = max(0.0, count.wrong - 1)

    def _count(self, name: str, rule: Rule) -> _Count:
        if rule is ALL:  # one for each kind: they are never pushed out by the many
            return self._totals.setdefault(name, _Count())
        count = self._counts.setdefault(name, _Count())
        self._counts.move_to_end(name)
        while len(self._counts) > _CLIENTS:
            self._counts.popitem(last=False)
        return count
