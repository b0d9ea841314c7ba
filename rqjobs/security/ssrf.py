"""The SSRF guard: restricts the targets to which a URL from an untrusted source can make our servers connect.

It checks resolved addresses, never the text of the URL (``2130706433``, ``0x7f.1`` and a name of the attacker may all
mean loopback). It checks all of them, and again when a socket is opened, so that a name which resolves differently
the second time (DNS rebinding) is refused.
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
"""The usual ports of HTTP. Another port of a public host may belong to a mail server or a database."""

_SCHEME_PORT = {"http": 80, "https": 443}
_KEPT = "%/?:@!$&'()*+,;=~"  # RFC 3986: characters that need no escape in a path or query, and %
_LOOPBACK: Networks = (ipaddress.IPv4Network("127.0.0.0/8"), ipaddress.IPv6Network("::1/128"))


class TargetRefused(RQJobsError):
    """The guard refuses a connection to a target.

    Attributes:
        target: the host, URL or address.
        rule: the rule that refused it, such as ``loopback`` or ``port``.
        address: the address of ``target``, for our own log; None if the text alone was refused. The message does not
            have it, because it may be shown to a tenant that must not learn the addresses of internal names.
    """

    def __init__(self, target: str, rule: str, why: str, address: str | None = None) -> None:
        self.target = target
        self.rule = rule
        self.address = address
        super().__init__(f"{target} is refused by the rule '{rule}': {why}")


class UnknownHost(RQJobsError, OSError):
    """A name does not resolve to an address."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL parsed by the guard. Connect to its ``url``, so that no other parser can read it differently."""

    scheme: str
    host: str
    """The host in ASCII: international names in their ``xn--`` form, IPv6 addresses without brackets."""
    port: int
    url: str
    """The URL, composed of the parts that were checked."""

    @property
    def origin(self) -> str:
        """``https://example.com:443``: targets with the same origin share connections, limits and a circuit breaker."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True)
class Guard:
    """The rules of one installation. Public addresses and the usual ports are allowed, everything else is refused."""

    hosts: frozenset[str] = frozenset()
    """Exempt names, with any address."""
    networks: Networks = ()
    """Exempt addresses."""
    ports: frozenset[int] = DEFAULT_PORTS
    """The allowed ports of hosts that are not exempt."""

    @classmethod
    def build(cls, allow: Iterable[str] = (), ports: Iterable[int] = DEFAULT_PORTS) -> Self:
        """Returns a guard that exempts ``allow``: names, addresses (``127.0.0.1``) and networks (``10.0.0.0/8``).

        ``localhost`` also exempts the loopback addresses.
        """
        hosts, networks = set(), []
        for word in allow:
            entry = word.partition(":")[0] if word.count(":") == 1 else word  # exempts all ports
            try:
                networks.append(ipaddress.ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                hosts.add(entry.lower().rstrip("."))
        if "localhost" in hosts:
            networks.extend(_LOOPBACK)
        return cls(frozenset(hosts), tuple(networks), frozenset(ports))

    def check_url(self, url: str) -> Target:
        """Returns the parsed ``url``, unless its text alone is not allowed.

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
        """Checks the resolved ``address`` of ``host``; called when a socket is opened.

        Raises:
            TargetRefused: the address is refused; the message names the rule.
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
        """Returns the addresses of ``host``, all checked. If one is refused, the host is refused.

        But if WEBHOOK_ALLOW exempts some of them (``127.0.0.1`` of a ``localhost`` that is also ``::1``), only those
        are returned.

        Raises:
            TargetRefused: an address is refused; the message names the rule.
            UnknownHost: there is no address.
        """
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise UnknownHost(f"the name {host} cannot be resolved: {getattr(error, 'strerror', error)}") from None
        return self.check_addresses(host, port, [(family, str(sockaddr[0])) for family, _, _, _, sockaddr in found])

    def check_addresses(
        self, host: str, port: int, addresses: Sequence[tuple[FamilyT, str]]
    ) -> Sequence[tuple[FamilyT, str]]:
        """Returns those of the host's ``addresses`` that may be connected to; see :meth:`resolve`.

        Raises:
            TargetRefused: an address is refused; the message names the rule.
        """
        exempt = [item for item in addresses if self._exempt(_parse(item[1]))]
        for _, address in exempt or addresses:
            self.check_address(host, address, port)
        return exempt or addresses

    def _exempt(self, address: Address) -> bool:
        return any(address.version == network.version and address in network for network in self.networks)

    def _may_be_exempt(self, host: str) -> bool:
        # A name is not resolved yet: check_address checks the port together with the address.
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

    try:  # as browsers and requests do; Python's own codec encodes faß.de as fass.de, which is another domain
        return idna.encode(host, uts46=True).decode().rstrip(".")
    except idna.IDNAError:
        raise TargetRefused(_short(url), "host", "it is no name that the DNS can hold") from None


@lru_cache(maxsize=4096)
def _parse(address: str) -> Address:
    parsed = ipaddress.ip_address(address.partition("%")[0])  # getaddrinfo adds a zone to link-local addresses
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed
