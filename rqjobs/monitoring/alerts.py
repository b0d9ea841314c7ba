"""Alerts: for unhealthy queues, dead jobs, dropped dead letters, disabled endpoints, and outages of Redis."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from email.message import EmailMessage
from typing import Literal, cast
from urllib.parse import quote

import redis

from rqjobs.broker import keys
from rqjobs.broker.connection import client_of, get_connection
from rqjobs.config.logs import event
from rqjobs.config.settings import get_settings
from rqjobs.errors import RedisUnavailable, RQJobsError
from rqjobs.mail.smtp import parse_smtp_url, sign_in
from rqjobs.monitoring.queue_health import QueueHealth, queue_health

Kind = Literal[
    "queue-unhealthy", "queue-recovered", "jobs-died", "dead-letters-dropped", "endpoint-disabled", "redis-unusable",
    "redis-usable", "dependency-away", "dependency-back", "schedule-late", "schedule-skipped",
]  # fmt: skip

EVERY = 15.0
"""Seconds between two checks of the queues; only one of all processes checks."""
_SECONDS = 10.0
_DEPENDENCY = "dependency "  # before the names of dependencies among the queues in ALERT_ILL; no queue has a blank
_AGAIN = 60  # seconds until an alert that no receiver got may be sent again

_PAGES: dict[Kind, str] = {
    "queue-unhealthy": "/queues/{}",
    "queue-recovered": "/queues/{}",
    "jobs-died": "/dead/?queue={}",
    "dead-letters-dropped": "/dead/?queue={}",
    "endpoint-disabled": "/webhooks/?to={}",
    "redis-unusable": "/",
    "redis-usable": "/",
    "dependency-away": "/",
    "dependency-back": "/",
    "schedule-late": "/",
    "schedule-skipped": "/",
}
"""The dashboard's page for the subject of each kind of alert."""


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One alert, for a person to act on."""

    kind: Kind
    subject: str
    """The queue, the endpoint, the dependency, or Redis."""
    text: str
    """One line: the fault and its fix."""

    @property
    def link(self) -> str | None:
        """The page of the dashboard at DASHBOARD_URL that shows the subject; None if that is not set."""
        base = get_settings().dashboard_url
        return base and base + _PAGES[self.kind].format(quote(self.subject, safe=""))


Hook = Callable[[Alert], None]
_hooks: list[Hook] = []


def on_alert(function: Hook) -> Hook:
    """Registers ``function``, which is called with each alert; for a module of RQJOBS_IMPORT. Usable as a decorator."""
    if function not in _hooks:
        _hooks.append(function)
    return function


def raise_alert(alert: Alert, connection: redis.Redis | None = None) -> bool:
    """Sends ``alert`` to every hook, to ALERT_URL and to ALERT_EMAIL; returns whether at least one of them received it.

    Only one alert of a kind and subject is sent within ALERT_EVERY, by all processes together. A failed receiver is
    logged; if all fail, the alert may be sent again after a minute.
    """
    settings = get_settings()
    client = client_of(connection)
    name, period = keys.alert(alert.kind, alert.subject), max(1, round(settings.alert_every.total_seconds()))
    if not client.set(name, "1", nx=True, ex=period):
        return False
    reached = _send(alert)
    if not reached:
        client.expire(name, min(period, _AGAIN))
    return reached


def _send(alert: Alert) -> bool:
    settings = get_settings()
    event(logging.WARNING, "alert", kind=alert.kind, subject=alert.subject, text=alert.text)
    senders: list[Hook] = list(_hooks)
    if settings.alert_url is not None:
        senders.append(_post)
    if settings.alert_email is not None:
        senders.append(_mail)
    reached = [_sent(send, alert) for send in senders]
    return any(reached)


def _sent(send: Hook, alert: Alert) -> bool:
    try:
        send(alert)
    except Exception as error:  # noqa: BLE001  # an alert that cannot be sent must not stop what raised it
        reason = f"{type(error).__name__}: {error}"
        event(logging.ERROR, "alert not sent", to=getattr(send, "__name__", "hook").strip("_"), error=reason)
        return False
    return True


def check(connection: redis.Redis) -> None:
    """Checks the queues once and sends the alerts that are due; does nothing if another process has just checked."""
    if not connection.set(keys.ALERT_TURN, "1", nx=True, px=int(EVERY * 900)):
        return
    died = _Total("jobs-died", keys.ALERT_SEEN, connection)
    dropped = _Total("dead-letters-dropped", keys.ALERT_DROPPED, connection)
    ill = cast("dict[bytes, bytes]", connection.hgetall(keys.ALERT_ILL))
    queues = queue_health(connection)
    _check_dependencies(queues, ill, connection)
    for queue in queues:
        name = queue.name.encode()
        if queue.own_reasons:
            text = f"{queue.name}: {'; '.join(queue.own_reasons)}"
            if name not in ill:  # alerted at the next check, so that a restart of workers causes no alert
                connection.hset(keys.ALERT_ILL, queue.name, "seen")
            elif raise_alert(Alert(kind="queue-unhealthy", subject=queue.name, text=text), connection):
                connection.hset(keys.ALERT_ILL, queue.name, "told")
        elif name in ill:
            connection.hdel(keys.ALERT_ILL, queue.name)
            if ill[name] == b"told":
                text = f"{queue.name} is healthy again"
                raise_alert(Alert(kind="queue-recovered", subject=queue.name, text=text), connection)
        _added_up(queue, died, connection)
        _added_up(queue, dropped, connection)


class _Total:
    """A total of each queue whose growth is alerted; growth without an alert is added to the next one."""

    def __init__(self, kind: Kind, key: str, connection: redis.Redis) -> None:
        self.kind, self.key = kind, key
        self.named = cast("dict[bytes, bytes]", connection.hgetall(key))

    def of(self, queue: QueueHealth) -> int:
        """Returns the current total of ``queue``."""
        return queue.failed_total if self.kind == "jobs-died" else queue.dropped

    def text(self, queue: QueueHealth, number: int) -> str:
        """Returns the text of an alert for a growth by ``number``."""
        if self.kind == "jobs-died":
            what = f"{number:,} job{'s' * (number > 1)} died"
        else:
            what = (
                f"{number:,} dead letter{'s were' if number > 1 else ' was'} deleted for good, because more than "
                f"RQJOBS_KEEP_FAILED={get_settings().rqjobs_keep_failed} died: raise it"
            )
        return f"{queue.name}: {what}. See why: rqjobs failed groups --queue {queue.name}"


def _added_up(queue: QueueHealth, total: _Total, connection: redis.Redis) -> None:
    name, now = queue.name.encode(), total.of(queue)
    grown = now - int(total.named[name]) if name in total.named else 0
    alert = Alert(kind=total.kind, subject=queue.name, text=total.text(queue, grown))
    sent = grown > 0 and raise_alert(alert, connection)
    if name not in total.named or grown < 0 or sent:
        connection.hset(total.key, queue.name, now)


def _check_dependencies(queues: list[QueueHealth], ill: dict[bytes, bytes], connection: redis.Redis) -> None:
    """Sends one alert if a dependency is unavailable at two checks, and one when it is available again.

    It is one for all queues that are held for the dependency.
    """
    waiting: defaultdict[str, list[QueueHealth]] = defaultdict(list)
    for queue in queues:
        for name in {away.dependency for away in queue.away if away.text in queue.reasons}:
            waiting[name].append(queue)
    for name, held in waiting.items():
        field, names = _DEPENDENCY + name, ", ".join(queue.name for queue in held)
        away = min((each for queue in held for each in queue.away if each.dependency == name), key=lambda a: a.since)
        jobs = sum(queue.waiting + queue.delayed for queue in held)
        text = (
            f"{name} is away since {away.since:%Y-%m-%d %H:%M:%S} UTC: {away.reason}. {jobs:,} jobs wait in {names}; "
            "none has lost an attempt, and they continue without action when it is back"
        )
        if field.encode() not in ill:
            connection.hset(keys.ALERT_ILL, field, "seen")
        elif raise_alert(Alert(kind="dependency-away", subject=name, text=text), connection):
            connection.hset(keys.ALERT_ILL, field, "told")
    for entry, state in ill.items():
        name = entry.decode().removeprefix(_DEPENDENCY)
        if entry.decode() != name and name not in waiting:
            connection.hdel(keys.ALERT_ILL, entry.decode())
            if state == b"told":
                text = f"{name} is back: its jobs continue"
                raise_alert(Alert(kind="dependency-back", subject=name, text=text), connection)


def watch() -> threading.Thread | None:
    """Starts a thread that checks the queues; returns None if no alert is configured."""
    settings = get_settings()
    if not (_hooks or settings.alert_url or settings.alert_email):
        return None
    thread = threading.Thread(target=_watch, name="alerts", daemon=True)
    thread.start()
    return thread


class Outage:
    """An outage of Redis. Alerts are counted in Redis, so each process sends this one separately."""

    def __init__(self) -> None:
        self._looks = 0
        self._told_at: float | None = None

    def goes_on(self, error: Exception) -> None:
        """Sends the alert at the second failed check, because restarts are short, and then every ALERT_EVERY."""
        self._looks += 1
        now, every = time.monotonic(), get_settings().alert_every.total_seconds()
        if self._looks > 1 and (self._told_at is None or now - self._told_at >= every):
            text = f"Redis cannot be used, jobs wait: {error}. See what is wrong: rqjobs doctor"
            if _send(Alert(kind="redis-unusable", subject="Redis", text=text)):
                self._told_at = now

    def over(self) -> None:
        """Sends an alert that Redis works again, if an outage was alerted."""
        if self._told_at is not None:
            _send(Alert(kind="redis-usable", subject="Redis", text="Redis can be used again"))
        self._looks, self._told_at = 0, None


def _watch() -> None:
    outage = Outage()
    while True:
        look(outage)
        time.sleep(EVERY)


def look(outage: Outage) -> None:
    """Checks Redis and, if it works, the queues; once, without raising."""
    try:
        check(get_connection())
    except (redis.exceptions.RedisError, RedisUnavailable) as error:
        outage.goes_on(error)
    except Exception as error:  # noqa: BLE001  # the next look comes
        event(logging.DEBUG, "alerts not checked", error=str(error))
    else:
        outage.over()


def _post(alert: Alert) -> None:
    """Posts ``{"text": ..., "kind": ..., "subject": ..., "link": ...}`` to ALERT_URL.

    Chats such as Slack and Mattermost show ``text``. Redirects are not followed. Only credentials in the URL are sent:
    requests would also send those of ``.netrc``.
    """
    import requests  # only when there is something to send
    from requests.utils import get_auth_from_url

    url = get_settings().alert_url
    assert url is not None
    user, password = get_auth_from_url(url.get_secret_value())
    document = asdict(alert) | {"text": " ".join(filter(None, (alert.text, alert.link))), "link": alert.link}
    try:
        status = requests.post(
            url.get_secret_value(),
            json=document,
            timeout=_SECONDS,
            allow_redirects=False,
            auth=(user, password) if user or password else lambda request: request,
        ).status_code
    except requests.RequestException as error:  # its text contains the URL, whose path is a secret
        raise RQJobsError(f"ALERT_URL cannot be reached: {type(error).__name__}") from None
    if status >= 300:  # noqa: PLR2004
        raise RQJobsError(f"ALERT_URL answers {status}")


def _mail(alert: Alert) -> None:
    """Sends the alert by SMTP_URL, not by a queue, because the queues may be the fault."""
    settings = get_settings()
    assert settings.alert_email is not None
    message = EmailMessage()
    message["From"], message["To"] = settings.email_from, settings.alert_email
    message["Subject"] = f"rqjobs: {alert.kind}: {alert.subject}"
    message.set_content("\n\n".join(filter(None, (alert.text, alert.link))) + "\n")
    with sign_in(parse_smtp_url(settings.smtp_url.get_secret_value()), _SECONDS) as server:
        server.send_message(message)
