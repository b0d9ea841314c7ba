"""The SSRF guard: the targets that a URL of a stranger may make our servers connect to.

It judges addresses as they were resolved, never the URL's text (``2130706433``, ``0x7f.1`` and a name of the
attacker's own all mean loopback), all of them, and it checks again at the moment when a socket is opened,
so that a name which answers differently the second time (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Self, TypeVar
from urllib.parse import SplitResult, quote, urlsplit

from rqjobs.errors import RQJobsError
from rqjobs.security.ip_ranges import Address, denied_by

FamilyT = TypeVar("FamilyT", bound=int)
Networks = tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]

DEFAULT_PORTS = frozenset({80, 443, 8080, 8443})
"""Where HTTP is served by convention. Another port of a public host may be a mail server or a database."""

_SCHEME_PORT = {"http": 80, "https": 443}
_KEPT = "%/?:@!$&'()*+,;=~"  # RFC 3986: what needs no escape in a path or query, and what is escaped already
_LOOPBACK: Networks = (ipaddress.IPv4Network("127.0.0.0/8"), ipaddress.IPv6Network("::1/128"))


class TargetRefused(RQJobsError):
    """A target that the guard does not let us connect to.

    Attributes:
        target: the host, URL or address.
        rule: the rule that refused it, such as ``loopback`` or ``port``.
        address: the address that ``target`` resolves to, for our own log; None if the text alone was refused. The
            message leaves it out: it may be shown to a tenant that is not to learn what internal names resolve to.
    """

    def __init__(self, target: str, rule: str, why: str, address: str | None = None) -> None:
        self.target = target
        self.rule = rule
        self.address = address
        super().__init__(f"{target} is refused by the rule '{rule}': {why}")


class UnknownHost(RQJobsError, OSError):
    """A name that resolves to no address, now."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL parsed by the guard. Connect to ``url``, so that no second parser can read it differently."""

    scheme: str
    host: str
    """In ASCII: international names in their ``xn--`` form, IPv6 addresses without brackets."""
    port: int
    url: str
    """The URL, composed of the parts that were checked."""

    @property
    def origin(self) -> str:
        """``https://example.com:443``: what shares connections, limits and a circuit breaker."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True)
class Guard:
    """The rules of one installation. Public addresses and conventional ports pass, everything else is refused."""

    hosts: frozenset[str] = frozenset()
    """Names that are exempt, whatever they resolve to."""
    networks: Networks = ()
    """Addresses that are exempt."""
    ports: frozenset[int] = DEFAULT_PORTS
    """The ports that hosts which are not exempt are reached at."""

    @classmethod
    def build(cls, allow: Iterable[str] = (), ports: Iterable[int] = DEFAULT_PORTS) -> Self:
        """A guard that exempts ``allow``: names, addresses (``127.0.0.1``) and networks (``10.0.0.0/8``).

        ``localhost`` exempts the loopback addresses as well.
        """
        hosts, networks = set(), []
        for word in allow:
            entry = word.partition(":")[0] if word.count(":") == 1 else word  # a port needs no exemption of its own
            try:
                networks.append(ipaddress.ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                hosts.add(entry.lower().rstrip("."))
        if "localhost" in hosts:
            networks.extend(_LOOPBACK)
        return cls(frozenset(hosts), tuple(networks), frozenset(ports))

    def check_url(self, url: str) -> Target:
        """``url`` parsed, if its text alone does not forbid it.

        Raises:
            TargetRefused: its scheme, user name, host or port is refused.
        """
        parts, port = _split(url)
        if parts.scheme not in _SCHEME_PORT:
            raise TargetRefused(_short(url), "scheme", "only http and https are delivered to")
        if "@" in parts.netloc:
            raise TargetRefused(parts.scheme + "://...", "userinfo", "a URL with a user name hides its host")
        host = _ascii_host(parts.hostname or "", url)
        port = port if port is not None else _SCHEME_PORT[parts.scheme]
        if port not in self.ports and not self._may_be_exempt(host):
            self._refuse_port(host, port)
        netloc = f"[{host}]" if ":" in host else host
        if port != _SCHEME_PORT[parts.scheme]:
            netloc += f":{port}"
        query = f"?{quote(parts.query, safe=_KEPT)}" if parts.query else ""
        return Target(
            parts.scheme, host, port, f"{parts.scheme}://{netloc}{quote(parts.path, safe=_KEPT) or '/'}{query}"
        )

    def check_address(self, host: str, address: str, port: int) -> None:
        """Lets the resolved ``address`` of ``host`` pass; for the moment in which a socket is opened.

        Raises:
            TargetRefused: naming the rule.
        """
        parsed = _parse(address)
        if host in self.hosts or self._exempt(parsed):
            return
        if port not in self.ports:
            self._refuse_port(host, port)
        if rule := denied_by(parsed):
            why = "it is not a public address; WEBHOOK_ALLOW exempts it for development"
            raise TargetRefused(host, rule, why, address)

    def resolve(self, host: str, port: int) -> Sequence[tuple[socket.AddressFamily, str]]:
        """The addresses of ``host``, all checked. One that is refused refuses the host; but where WEBHOOK_ALLOW
        exempts some of them (``127.0.0.1`` of a ``localhost`` that is ``::1`` as well), only those are meant.

        Raises:
            TargetRefused: naming the rule.
            UnknownHost: there is none.
        """  # noqa: D205
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise UnknownHost(f"the name {host} cannot be resolved: {getattr(error, 'strerror', error)}") from None
        return self.check_addresses(host, port, [(family, str(sockaddr[0])) for family, _, _, _, sockaddr in found])

    def check_addresses(
        self, host: str, port: int, addresses: Sequence[tuple[FamilyT, str]]
    ) -> Sequence[tuple[FamilyT, str]]:
        """Those of ``addresses``, of ``host``, that may be connected to, as :meth:`resolve` explains.

        Raises:
            TargetRefused: naming the rule.
        """
        exempt = [item for item in addresses if self._exempt(_parse(item[1]))]
        for _, address in exempt or addresses:
            self.check_address(host, address, port)
        return exempt or addresses

    def _exempt(self, address: Address) -> bool:
        return any(address.version == network.version and address in network for network in self.networks)

    def _may_be_exempt(self, host: str) -> bool:
        # A name's addresses are not known yet: check_address judges the port with them.
        return host in self.hosts or bool(self.networks)

    def _refuse_port(self, host: str, port: int) -> None:
        known = " ".join(str(port) for port in sorted(self.ports))
        why = f"port {port} is none of WEBHOOK_PORTS ({known}); WEBHOOK_ALLOW exempts the host for development"
        raise TargetRefused(f"{host}:{port}", "port", why)


def _split(url: str) -> tuple[SplitResult, int | None]:
    if not url.isprintable() or " " in url or "\\" in url:
        raise TargetRefused(_short(url), "url", "blanks, control characters and backslashes have no place in it")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise TargetRefused(_short(url), "url", str(error)) from None
    return parts, port


def _short(url: str) -> str:
    return ascii(url.partition("?")[0][:80])[1:-1]


def _ascii_host(host: str, url: str) -> str:
    if not host:
        raise TargetRefused(_short(url), "host", "it names no host")
    if "%" in host:
        raise TargetRefused(_short(url), "host", "an escaped host, or an IPv6 zone, is no public name")
    if ":" in host:
        return host
    if host.isascii():
        return host.rstrip(".")
    import idna

    try:  # as browsers and requests have it; Python's own codec takes faß.de for fass.de, which is another domain
        return idna.encode(host, uts46=True).decode().rstrip(".")
    except idna.IDNAError:
        raise TargetRefused(_short(url), "host", "it is no name that the DNS can hold") from None


@lru_cache(maxsize=4096)
def _parse(address: str) -> Address:
    parsed = ipaddress.ip_address(address.partition("%")[0])  # getaddrinfo adds a zone to link-local addresses
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed
