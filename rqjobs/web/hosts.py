"""The host names that the dashboard answers to, and the proxies before it."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

FORWARDED = "rqjobs.forwarded"
"""In the WSGI environ: whether REMOTE_ADDR is what a trusted proxy reported. Not a header, so no request can set it."""

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def is_allowed(host: str, names: Iterable[str]) -> bool:
    """Whether a request with this Host header is answered.

    A page of another site can have its own name point to this machine (DNS rebinding) and is then of one origin with
    the dashboard. So only names that are ours pass. An address passes as well: no name has to be resolved for it, and
    probes of orchestrators use it.

    Args:
        host: the header, with or without a port.
        names: the allowed names, in small letters.
    """
    name = _without_port(host)
    return name == "localhost" or name in names or _address(name) is not None


def allowed_names(dashboard_url: str | None, more: Sequence[str]) -> frozenset[str]:
    """The names for :func:`is_allowed`: the host of DASHBOARD_URL, and those of DASHBOARD_HOSTS."""
    own = urlsplit(dashboard_url or "").hostname
    return frozenset(name.lower().rstrip(".") for name in (own, *more) if name)


def _without_port(host: str) -> str:
    try:
        parts = urlsplit(f"//{host}")
        _port = parts.port  # asked for, it is checked
    except ValueError:
        return ""
    return (parts.hostname or "").rstrip(".") if parts.netloc == host and "@" not in host else ""


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


class TrustedProxies:
    """WSGI middleware: client address and scheme as trusted proxies report them.

    X-Forwarded-For is read from the right, where the nearest proxy added what it saw, up to the first address that is
    not a trusted proxy: what the client wrote stands further left and is not believed.

    Where DASHBOARD_URL is https, a request for its host came by https, whatever the proxy reports.
    """

    def __init__(
        self, app: Callable[..., Iterable[bytes]], proxies: Sequence[str], dashboard_url: str | None = None
    ) -> None:
        """Wraps ``app``; ``proxies`` are addresses and networks."""
        self._app = app
        self._https_host = (
            urlsplit(dashboard_url or "").hostname if (dashboard_url or "").startswith("https:") else None
        )
        self._trusted: list[_Network] = [ipaddress.ip_network(proxy, strict=False) for proxy in proxies]

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answers a request, as WSGI defines it."""
        forwarded = environ.pop("HTTP_X_FORWARDED_FOR", "")
        scheme = environ.pop("HTTP_X_FORWARDED_PROTO", "").rpartition(",")[2].strip().lower()
        environ[FORWARDED] = False
        if self._https_host is not None and _without_port(environ.get("HTTP_HOST", "")) == self._https_host:
            environ["wsgi.url_scheme"] = "https"
        if self._is_trusted(environ.get("REMOTE_ADDR")):
            if scheme in ("http", "https"):
                environ["wsgi.url_scheme"] = scheme
            for address in reversed([part.strip() for part in forwarded.split(",")] if forwarded else []):
                if _address(address) is None:
                    break
                environ["REMOTE_ADDR"], environ[FORWARDED] = address, True
                if not self._is_trusted(address):
                    break
        return self._app(environ, start_response)

    def _is_trusted(self, address: str | None) -> bool:
        parsed = _address(address or "")
        if parsed is None:
            return False
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
            parsed = parsed.ipv4_mapped
        return any(parsed in network for network in self._trusted)
