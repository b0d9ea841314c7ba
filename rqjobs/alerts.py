"""Alerts: a person is told when a queue turns unhealthy, jobs die, or an endpoint is disabled; never too often."""

from __future__ import annotations

import logging
import smtplib
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from email.message import EmailMessage
from typing import Literal
from urllib.parse import unquote, urlsplit

import redis
import requests
from pydantic import SecretStr

from rqjobs import keys
from rqjobs.connection import get_connection
from rqjobs.health import queue_health
from rqjobs.logs import event
from rqjobs.settings import get_settings

Kind = Literal["queue-unhealthy", "jobs-died", "endpoint-disabled"]

EVERY = 15.0
"""Seconds between two looks at the queues; one process of all looks."""
_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Alert:
    """Something that a person should know."""

    kind: Kind
    subject: str
    """The queue, or the endpoint."""
    text: str
    """What is wrong, in a line, with the mend."""


Hook = Callable[[Alert], None]
_hooks: list[Hook] = []


def on_alert(function: Hook) -> Hook:
    """Calls ``function`` with each alert; for a module of RQJOBS_IMPORT. Usable as a decorator."""
    if function not in _hooks:
        _hooks.append(function)
    return function


def raise_alert(alert: Alert, connection: redis.Redis | None = None) -> bool:
    """Sends ``alert`` to every hook, to ALERT_URL and to ALERT_EMAIL; False if one like it went out lately.

    At most one of a kind and a subject goes out within ALERT_EVERY, whichever process raises it. What cannot be sent
    is logged.
    """
    settings = get_settings()
    client = connection or get_connection()
    period = max(1, round(settings.alert_every.total_seconds()))
    if not client.set(keys.alert(alert.kind, alert.subject), "1", nx=True, ex=period):
        return False
    event(logging.WARNING, "alert", kind=alert.kind, subject=alert.subject, text=alert.text)
    senders: list[Hook] = list(_hooks)
    if settings.alert_url is not None:
        senders.append(_post)
    if settings.alert_email is not None:
        senders.append(_mail)
    for send in senders:
        try:
            send(alert)
        except Exception as error:  # noqa: BLE001  # an alert that cannot be sent must not stop what raised it
            event(
                logging.ERROR, "alert not sent", to=send.__name__.strip("_"), error=f"{type(error).__name__}: {error}"
            )
    return True


def check(connection: redis.Redis) -> None:
    """Looks at the queues once, and raises what there is to say; nothing if another process looked just now."""
    if not connection.set(keys.ALERT_TURN, "1", nx=True, px=int(EVERY * 900)):
        return
    for queue in queue_health(connection):
        if queue.reasons:
            text = f"{queue.name}: {'; '.join(queue.reasons)}"
            raise_alert(Alert(kind="queue-unhealthy", subject=queue.name, text=text), connection)
        seen = connection.hget(keys.ALERT_SEEN, queue.name)
        died = queue.failed_total - int(seen) if seen is not None else 0
        text = f"{queue.name}: {died:,} jobs died. See why: rqjobs failed groups --queue {queue.name}"
        told = died > 0 and raise_alert(Alert(kind="jobs-died", subject=queue.name, text=text), connection)
        if seen is None or died < 0 or told:  # within ALERT_EVERY they add up for the next alert
            connection.hset(keys.ALERT_SEEN, queue.name, queue.failed_total)


def watch() -> threading.Thread | None:
    """Looks at the queues from now on in a thread; None if nobody is to be told anything."""
    settings = get_settings()
    if not (_hooks or settings.alert_url or settings.alert_email):
        return None
    thread = threading.Thread(target=_watch, name="alerts", daemon=True)
    thread.start()
    return thread


def _watch() -> None:
    while True:
        try:
            check(get_connection())
        except Exception as error:  # noqa: BLE001  # Redis may be away for a while
            event(logging.DEBUG, "alerts could not look", error=str(error))
        time.sleep(EVERY)


def _post(alert: Alert) -> None:
    """``{"text": ..., "kind": ..., "subject": ...}``: chats such as Slack and Mattermost show ``text``."""
    url = get_settings().alert_url
    assert url is not None
    requests.post(url.get_secret_value(), json=asdict(alert), timeout=_SECONDS).raise_for_status()


def _mail(alert: Alert) -> None:
    """By SMTP_URL, past the queues: they may be what is broken."""
    settings = get_settings()
    assert settings.alert_email is not None
    message = EmailMessage()
    message["From"], message["To"] = settings.email_from, settings.alert_email
    message["Subject"] = f"rqjobs: {alert.kind}: {alert.subject}"
    message.set_content(alert.text + "\n")
    with _smtp(settings.smtp_url) as server:
        server.send_message(message)


def _smtp(address: SecretStr) -> smtplib.SMTP:
    parts = urlsplit(address.get_secret_value())
    host, context = parts.hostname or "localhost", ssl.create_default_context()
    if parts.scheme == "smtps":
        server: smtplib.SMTP = smtplib.SMTP_SSL(host, parts.port or 465, timeout=_SECONDS, context=context)
    else:
        server = smtplib.SMTP(host, parts.port or 587, timeout=_SECONDS)
        server.ehlo()
        if server.has_extn("starttls"):
            server.starttls(context=context)
            server.ehlo()
    if parts.username:
        server.login(unquote(parts.username), unquote(parts.password or ""))
    return server
