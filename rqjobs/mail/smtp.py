"""The mail server at SMTP_URL: parses the URL, and opens a connection with encryption and login."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import smtplib
import ssl
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

_GO_ON = 334  # RFC 4954, 4: the server expects the next line of the login
_SIGNED_IN = (235, 503)  # logged in now, or already


@dataclass(frozen=True, slots=True)
class Server:
    """The parts of SMTP_URL."""

    host: str
    port: int
    user: str
    password: str
    implicit_tls: bool
    tls: bool
    """Whether TLS is used."""
    ca_file: str | None

    @property
    def on_loopback(self) -> bool:
        """Whether the server is on this machine; only then STARTTLS is not required."""
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return self.host == "localhost"


def parse_smtp_url(url: str) -> Server:
    """Parses ``smtp://user:password@host:587`` or ``smtps://...:465``; user and password are percent-encoded."""
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


def sign_in(server: Server, timeout: float) -> smtplib.SMTP:
    """Returns a connection that is ready to send; ``timeout`` is in seconds, for each step.

    Raises:
        ValueError: ``ca_file`` is not a certificate authority.
        smtplib.SMTPNotSupportedError: the server offers no TLS, and it is not on loopback, or there is a password.
        smtplib.SMTPException, OSError: the server refuses, or cannot be reached.
    """
    try:
        context = ssl.create_default_context(cafile=server.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"SMTP_URL: the file {server.ca_file} is no certificate authority: {error}") from None
    smtp: smtplib.SMTP
    if server.implicit_tls:
        smtp = smtplib.SMTP_SSL(server.host, server.port, timeout=timeout, context=context)
    else:
        smtp = smtplib.SMTP(server.host, server.port, timeout=timeout)
    try:
        smtp.ehlo_or_helo_if_needed()
        if server.tls and not server.implicit_tls and (smtp.has_extn("starttls") or not server.on_loopback):
            smtp.starttls(context=context)
            smtp.ehlo_or_helo_if_needed()
        if server.user:
            if not isinstance(smtp.sock, ssl.SSLSocket):
                raise smtplib.SMTPNotSupportedError("it offers no TLS, and a password is never sent in the clear")  # noqa: TRY301
            _login(smtp, server.user, server.password)
    except BaseException:
        smtp.close()
        raise
    return smtp


def _login(smtp: smtplib.SMTP, user: str, password: str) -> None:
    """Logs in; beyond ASCII, which smtplib does not support, in UTF-8 (RFC 4616, RFC 4954)."""
    if user.isascii() and password.isascii():
        smtp.login(user, password)
        return
    offered = smtp.esmtp_features.get("auth", "").upper().split()
    if "PLAIN" in offered:
        code, reply = smtp.docmd("AUTH", f"PLAIN {_in_base64(f'{chr(0)}{user}{chr(0)}{password}')}")
    elif "LOGIN" in offered:
        code, reply = smtp.docmd("AUTH", f"LOGIN {_in_base64(user)}")
        if code == _GO_ON:
            code, reply = smtp.docmd(_in_base64(password))
    else:
        raise smtplib.SMTPNotSupportedError("it offers neither AUTH PLAIN nor LOGIN for a login beyond ASCII")
    if code not in _SIGNED_IN:
        raise smtplib.SMTPAuthenticationError(code, reply)


def _in_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
