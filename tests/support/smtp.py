"""A real SMTP server (aiosmtpd) on loopback, in a thread, with STARTTLS, AUTH, and refusals as a test wants them."""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import random
import ssl
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path

import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

USER, PASSWORD = "user", "p@ss/w:rd"


@dataclass
class Mail:
    sender: str
    to: list[str]
    raw: bytes
    tls: bool
    user: str | None

    @property
    def message(self) -> EmailMessage:
        text = self.raw.decode()  # from bytes, headers in UTF-8 would come out as surrogates
        return email.message_from_string(text, policy=email.policy.default)


@dataclass
class MailServer:
    port: int = 0
    ca_file: Path = Path()
    mails: list[Mail] = field(default_factory=list)
    connections: int = 0
    mail_from: str | None = None
    """The answer to MAIL; None for what it deserves. So are the others."""
    rcpt: dict[str, str] = field(default_factory=dict)
    """By address. ``drop``: the connection is broken."""
    data: deque[str] = field(default_factory=deque)
    """Answers to the dot. ``drop``: the mail is taken, and the connection broken. ``lose``: broken only."""

    pause: float = 0.0
    """Seconds at most that the answer to the dot is late, before and after the mail is taken."""

    async def handle_MAIL(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list) -> str:
        if self.mail_from:
            return self.mail_from
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list) -> str:
        if self.rcpt.get(address) == "drop":
            server.transport.abort()
        if address in self.rcpt:
            return self.rcpt[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        answer = self.data.popleft() if self.data else "250 OK queued as 1"
        await asyncio.sleep(random.random() * self.pause)
        if answer.startswith("250") or answer == "drop":
            user = session.auth_data.login.decode() if session.auth_data else None
            assert isinstance(envelope.original_content, bytes)
            self.mails.append(
                Mail(
                    envelope.mail_from or "",
                    list(envelope.rcpt_tos),
                    envelope.original_content,
                    bool(session.ssl),
                    user,
                )
            )
        await asyncio.sleep(random.random() * self.pause)
        if answer in ("drop", "lose"):
            server.transport.abort()
            return "250 never arrives"
        return answer


class _Authenticator:
    """Lets one login in."""

    def __init__(self, user: str, password: str) -> None:
        self.login = user.encode(), password.encode()

    def __call__(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object
    ) -> AuthResult:  # fmt: skip
        good = isinstance(data, LoginPassword) and (data.login, data.password) == self.login
        return AuthResult(success=good, handled=good, auth_data=data)


@contextlib.contextmanager
def smtp_server(
    folder: Path, *, starttls: bool = True, implicit: bool = False, auth: bool = False, utf8: bool = True,
    size_limit: int = 33_554_432, host: str = "localhost", login: tuple[str, str] = (USER, PASSWORD),
    mechanisms_off: Sequence[str] = (), port: int = 0,
) -> Iterator[MailServer]:  # fmt: skip
    """A server that ends with the block; its certificate is for ``host``. ``port`` 0 takes any free one."""
    running = MailServer()
    authority = trustme.CA()
    running.ca_file = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(running.ca_file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)

    protocols: list[SMTP] = []

    def protocol() -> SMTP:
        running.connections += 1
        made = SMTP(
            running, hostname="mail.test", loop=loop, enable_SMTPUTF8=utf8, data_size_limit=size_limit,
            tls_context=context if starttls and not implicit else None, require_starttls=auth and not implicit,
            auth_required=auth, auth_require_tls=not implicit, authenticator=_Authenticator(*login) if auth else None,
            auth_exclude_mechanism=mechanisms_off,
        )  # fmt: skip
        protocols.append(made)
        return made

    loop = asyncio.new_event_loop()
    ready = threading.Event()

    def run() -> None:
        asyncio.set_event_loop(loop)
        server = loop.run_until_complete(
            loop.create_server(protocol, "127.0.0.1", port, ssl=context if implicit else None)
        )
        running.port = server.sockets[0].getsockname()[1]
        ready.set()
        loop.run_forever()
        server.close()
        for made in protocols:
            if made.transport is not None:
                with contextlib.suppress(AttributeError):  # asyncio's TLS transport, if it was closed twice
                    made.transport.abort()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        for _ in range(100):
            with contextlib.suppress(asyncio.CancelledError):
                loop.run_until_complete(asyncio.sleep(0.01))
            if all(made.transport is None for made in protocols):
                break
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        yield running
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
