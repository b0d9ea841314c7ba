"""The allowed host names of the dashboard, and the trusted proxies."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

FORWARDED = "rqjobs.forwarded"
"""The key in the WSGI environ for whether a trusted proxy has reported REMOTE_ADDR. No request header can set it."""

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def is_allowed(host: str, names: Iterable[str]) -> bool:
    """Returns whether requests with this Host header are allowed.

    A page of another site can make its own name point to this machine (DNS rebinding), and then has the same origin as
    the dashboard. So only our own names are allowed, and addresses, which need no resolution, and which orchestrators'
    probes use.

    Args:
        host: the header, with or without a port.
        names: the allowed names, in lower case.
    """
    name = _without_port(host)
    return name == "localhost" or name in names or _address(name) is not None


def allowed_names(dashboard_url: str | None, more: Sequence[str]) -> frozenset[str]:
    """Returns the names for :func:`is_allowed`: the host of DASHBOARD_URL, and those of DASHBOARD_HOSTS."""
    own = urlsplit(dashboard_url or "").hostname
    return frozenset(name.lower().rstrip(".") for name in (own, *more) if name)


def _without_port(host: str) -> str:
    try:
        parts = urlsplit(f"//{host}")
        _port = parts.port  # the property checks it
    except ValueError:
        return ""
    return (parts.hostname or "").rstrip(".") if parts.netloc == host and "@" not in host else ""


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


class TrustedProxies:
    """WSGI middleware that sets the client address and the scheme as trusted proxies report them.

    X-Forwarded-For is read from the right, where the nearest proxy appends the address it saw, up to the first address
    that is not a trusted proxy. The entries further left come from the client, and are not trusted. If DASHBOARD_URL is
    https, every request for its host counts as https, even if the proxy reports http.
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
        """Handles a request (PEP 3333)."""
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
