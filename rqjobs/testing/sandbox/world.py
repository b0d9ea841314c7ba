"""A complete environment on loopback: Redis, a database with an app's tables, and all services that jobs call."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Column, DateTime, Integer, MetaData, String, Table, func, insert

from rqjobs.broker.connection import get_connection
from rqjobs.broker.embedded import stop_server
from rqjobs.database import open_engine
from rqjobs.testing import environment
from rqjobs.testing.sandbox.manychat import DEFAULT_TOKEN, ManyChatSandbox
from rqjobs.testing.sandbox.receiver import Receiver, signing_secret


@dataclass(frozen=True)
class World:
    """The servers of the environment."""

    folder: Path
    receiver: Receiver
    """The webhook endpoint of a customer."""
    manychat: ManyChatSandbox
    mails: Callable[[], int]
    """Returns the number of mails that have arrived."""


@contextmanager
def play() -> Iterator[World]:
    """Starts the environment and sets this process's settings to it; stops it at the end of the block."""
    with (
        tempfile.TemporaryDirectory(prefix="rqjobs-demo-") as name,
        Receiver(signing_secret()) as receiver,
        ManyChatSandbox() as manychat,
        _mailbox() as (mail_settings, mails),
    ):
        folder = Path(name)
        settings = {
            "REDIS_URL": f"embedded:{folder / 'redis'}",
            "DATABASE_URL": f"sqlite:///{folder / 'demo.db'}",
            "RQJOBS_DATA": name,
            "RQJOBS_IMPORT": "",
            "WEBHOOK_SIGNING_SECRET": receiver.secret,
            "WEBHOOK_ALLOW": "127.0.0.1",
            "MANYCHAT_API_URL": manychat.url,
            "MANYCHAT_API_TOKEN": DEFAULT_TOKEN,
            "EXPORT_URL": str(folder / "exports"),
            **mail_settings,
        }
        with environment(**settings):
            _app_tables(settings["DATABASE_URL"])
            get_connection()
            try:
                yield World(folder, receiver, manychat, mails)
            finally:
                stop_server(folder / "redis")


@contextmanager
def _mailbox() -> Iterator[tuple[dict[str, str], Callable[[], int]]]:
    """A real SMTP server if aiosmtpd is installed (the extra ``demo``), otherwise the backend that writes files."""
    try:
        from aiosmtpd.controller import Controller
    except ImportError:
        yield {"EMAIL_BACKEND": "file"}, lambda: 0
        return
    arrived: list[Any] = []

    class Handler:
        async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
            arrived.append(envelope)
            return "250 kept"

    with socket.socket() as probe:  # aiosmtpd does not report the port that it was given
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    controller = Controller(Handler(), hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield {"EMAIL_BACKEND": "smtp", "SMTP_URL": f"smtp://127.0.0.1:{port}"}, lambda: len(arrived)
    finally:
        controller.stop()


def _app_tables(url: str) -> None:
    """Creates and fills the app's own table, which an export reads."""
    metadata = MetaData()
    contacts = Table(
        "contacts",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("user_id", String),
        Column("first_name", String),
        Column("email", String),
        Column("tags", String),
        Column("created_at", DateTime, server_default=func.now()),
    )
    engine = open_engine(url)
    metadata.create_all(engine)
    people = [
        ("shop_1", "Ada", "vip"),
        ("shop_1", "Grace", "new"),
        ("shop_1", "=HYPERLINK(1)", "vip"),
        ("shop_2", "Eve", "vip"),
    ]
    names = ("user_id", "first_name", "tags")
    with engine.begin() as connection:
        connection.execute(insert(contacts), [dict(zip(names, person, strict=True)) for person in people])
    engine.dispose()
