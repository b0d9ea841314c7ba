"""The outside world over its real protocols, each part with a switch that breaks it. Effects go to the ledger."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rqjobs.testing.sandbox.mail import MailAPI
from rqjobs.testing.sandbox.manychat import ManyChatSandbox
from rqjobs.testing.sandbox.server import Request
from tests.chaos.ledger import Ledger
from tests.support.dns import Nameserver, Reply
from tests.support.receiver import Answer, Received, Receiver
from tests.support.servers import free_port
from tests.support.smtp import MailServer, smtp_server

TOKENS = {f"tool_{n}": f"{4711 + n}:hush-0123456789abcdef" for n in range(10)}
"""An account for each tool: each takes ten calls a second."""

_SUBJECT = re.compile(rb"^Subject: (\S+)", re.MULTILINE)


class ManyChat(ManyChatSandbox):
    """ManyChat, which answers ``status`` to everything while that is set."""

    status: int | None = None

    def handle(self, request: Request) -> None:
        if self.status is None:
            super().handle(request)
            return
        request.read()
        message = "Wrong token" if self.status == 401 else "Internal error"
        body = json.dumps({"status": "error", "message": message}).encode()
        request.answer(self.status, body, {"Content-Type": "application/json"})

    def marks(self) -> set[str]:
        """The contacts that exist."""
        contacts = [one for account in self.accounts.values() for one in list(account.subscribers.values())]
        return {one.profile.get("email", "").partition("@")[0] for one in contacts}


class Mailbox:
    """An SMTP server that can be switched off and on at one port."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self._folder, self._ledger = folder, ledger
        self.port = free_port()
        self._running: contextlib.ExitStack | None = None
        self._servers: list[MailServer] = []

    def on(self) -> None:
        """Listens."""
        self._running = contextlib.ExitStack()
        self._servers.append(self._running.enter_context(smtp_server(self._folder, starttls=False, port=self.port)))

    def off(self) -> None:
        """Refuses connections; those that are open break."""
        if self._running is not None:
            self._running.close()
            self._running = None

    def marks(self) -> list[str]:
        """The subjects of the mails that arrived, one for each."""
        found = (_SUBJECT.search(mail.raw) for server in self._servers for mail in list(server.mails))
        return [subject[1].decode() for subject in found if subject]


class Outside:
    """All doubles, running while entered."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self.ledger = ledger
        self.receiver = Receiver(self._answer)
        self.far_away = False
        """Whether the path ``/far`` of the receiver answers 503."""
        self.manychat = ManyChat(TOKENS.values())
        self.smtp = Mailbox(folder, ledger)
        self.mail_api = MailAPI()
        self._key = self.mail_api.key
        self.names = Nameserver(lambda name: Reply(("127.0.0.1",), ttl=1))

    @contextlib.contextmanager
    def running(self) -> Iterator[Outside]:
        """Starts all, and ends all."""
        self.receiver.start()
        self.smtp.on()
        try:
            self.names.start()
            with self.manychat, self.mail_api:
                yield self
        finally:
            self.names.stop()
            self.smtp.off()
            self.receiver.stop()

    def _answer(self, request: Received) -> Answer:
        self.receiver.requests.clear()  # 20 minutes of them are much memory
        path = request.path.strip("/")
        if path == "far" and self.far_away:
            return Answer(503)
        self.ledger.see(json.loads(request.body)["payload"]["mark"])
        return Answer(404 if path == "404" else 204, b"")

    def settings(self, mail: str) -> dict[str, str]:
        """The settings that lead here; ``mail`` is the value of EMAIL_BACKEND."""
        return {
            "WEBHOOK_ALLOW": "127.0.0.1", "WEBHOOK_TIMEOUT": "60s", "WEBHOOK_NAMESERVERS": self.names.address,
            "MANYCHAT_API_URL": self.manychat.url, "MANYCHAT_API_TOKENS": json.dumps(TOKENS),
            "EMAIL_BACKEND": mail, "EMAIL_FROM": "Shop <shop@shop.example>", "EMAIL_UNKNOWN_OUTCOME": "hold",
            "SMTP_URL": f"smtp://127.0.0.1:{self.smtp.port}",
            "SENDGRID_API_URL": self.mail_api.url, "SENDGRID_API_KEY": self._key,
            "RESEND_API_URL": self.mail_api.url, "RESEND_API_KEY": self._key, "RESEND_RATE": "200/s",
        }  # fmt: skip

    def url(self) -> str:
        """The webhook receiver."""
        return f"http://127.0.0.1:{self.receiver.port}"

    @contextlib.contextmanager
    def names_unanswered(self, *, silent: bool) -> Iterator[None]:
        """The name server is away: its port is closed, or (``silent``) it answers nothing."""
        rule, root = self.names.rule, self.names.root
        if silent:
            self.names.rule, self.names.root = lambda name: None, None
        else:
            self.names.stop()
        try:
            yield
        finally:
            if not silent:
                self.names.start()
            self.names.rule, self.names.root = rule, root

    @contextlib.contextmanager
    def key_revoked(self) -> Iterator[None]:
        """The mail API refuses our key: SendGrid answers 401, Resend 403."""
        self.mail_api.key = "another"
        try:
            yield
        finally:
            self.mail_api.key = self._key

    @contextlib.contextmanager
    def manychat_answers(self, status: int) -> Iterator[None]:
        """ManyChat answers this to everything."""
        self.manychat.status = status
        try:
            yield
        finally:
            self.manychat.status = None

    def marks(self) -> list[str]:
        """The marks of all mails and contacts, one for each."""
        sent: list[Any] = list(self.mail_api.sent)
        return [*self.smtp.marks(), *(str(mail.payload["subject"]) for mail in sent), *self.manychat.marks()]
