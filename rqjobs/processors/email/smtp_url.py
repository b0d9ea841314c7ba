"""SMTP_URL in its parts."""

from __future__ import annotations

import contextlib
import ipaddress
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(frozen=True, slots=True)
class Server:
    """SMTP_URL in its parts."""

    host: str
    port: int
    user: str
    password: str
    implicit_tls: bool
    tls: bool
    """Whether TLS is wanted at all."""
    ca_file: str | None

    @property
    def on_loopback(self) -> bool:
        """Whether nobody can listen in on the way: only there the server may lack STARTTLS."""
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return self.host == "localhost"


def parse_smtp_url(url: str) -> Server:
    """``smtp://user:password@host:587`` or ``smtps://...:465``; user and password percent-encoded."""
    parts = urlsplit(url)
    options = parse_qs(parts.query)
    implicit = parts.scheme == "smtps"
    return Server(
        host=parts.hostname or "localhost",
        port=parts.port or (465 if implicit else 587),
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        implicit_tls=implicit,
        tls=options.get("tls", [""])[0] != "off",
        ca_file=options.get("ca", [None])[0],
    )
