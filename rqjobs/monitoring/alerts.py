"""Alerts: a queue is unhealthy or well again, jobs die, dead letters are dropped, an endpoint is off, Redis fails."""

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
"""Seconds between two looks at the queues; one process of all looks."""
_SECONDS = 10.0
_DEPENDENCY = "dependency "  # before the names of dependencies among the queues in ALERT_ILL; no queue has a blank
_AGAIN = 60  # seconds until an alert that failed on every way may be tried again

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
"""Where the dashboard shows the subject of an alert."""


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
        """The page of the dashboard at DASHBOARD_URL that shows it; None if that is not set."""
        base = get_settings().dashboard_url
        return base and base + _PAGES[self.kind].format(quote(self.subject, safe=""))


Hook = Callable[[Alert], None]
_hooks: list[Hook] = []


def on_alert(function: Hook) -> Hook:
    """Calls ``function`` with each alert; for a module of RQJOBS_IMPORT. Usable as a decorator."""
    if function not in _hooks:
        _hooks.append(function)
    return function


def raise_alert(alert: Alert, connection: redis.Redis | None = None) -> bool:
    """Sends ``alert`` to every hook, to ALERT_URL and to ALERT_EMAIL; whether at least one of them got it.

    At most one of a kind and a subject goes out within ALERT_EVERY, whichever process raises it. What cannot be sent
    is logged; an alert that failed on every way may be tried again after a minute.
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
    """Checks the queues once and sends the alerts that are due; does nothing if another process checked just now."""
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
            if name not in ill:  # workers that restart cause no alert: the next check decides
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
    """A total of each queue of which alerts name the growth: what no alert has named adds up for the next one."""

    def __init__(self, kind: Kind, key: str, connection: redis.Redis) -> None:
        self.kind, self.key = kind, key
        self.named = cast("dict[bytes, bytes]", connection.hgetall(key))

    def of(self, queue: QueueHealth) -> int:
        """The total of ``queue`` now."""
        return queue.failed_total if self.kind == "jobs-died" else queue.dropped

    def text(self, queue: QueueHealth, number: int) -> str:
        """The alert's text for ``number`` more of them."""
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
    """One alert when a dependency is away at two looks, however many queues wait for it, and one when it is back."""
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
            "none has lost an attempt, and they go on by themselves when it is back"
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
                text = f"{name} is back: what waited for it goes on"
                raise_alert(Alert(kind="dependency-back", subject=name, text=text), connection)


def watch() -> threading.Thread | None:
    """Starts a thread that checks the queues from now on; None if no alert is set up."""
    settings = get_settings()
    if not (_hooks or settings.alert_url or settings.alert_email):
        return None
    thread = threading.Thread(target=_watch, name="alerts", daemon=True)
    thread.start()
    return thread


class Outage:
    """Redis is away, full or a replica. Alerts are counted in Redis, so each process sends this one itself."""

    def __init__(self) -> None:
        self._looks = 0
        self._told_at: float | None = None

    def goes_on(self, error: Exception) -> None:
        """Redis failed: sends the alert at the second check, as a restart is short, and then every ALERT_EVERY."""
        self._looks += 1
        now, every = time.monotonic(), get_settings().alert_every.total_seconds()
        if self._looks > 1 and (self._told_at is None or now - self._told_at >= every):
            text = f"Redis cannot be used, jobs wait: {error}. See what is wrong: rqjobs doctor"
            if _send(Alert(kind="redis-unusable", subject="Redis", text=text)):
                self._told_at = now

    def over(self) -> None:
        """Redis works."""
        if self._told_at is not None:
            _send(Alert(kind="redis-usable", subject="Redis", text="Redis can be used again"))
        self._looks, self._told_at = 0, None


def _watch() -> None:
    outage = Outage()
    while True:
        look(outage)
        time.sleep(EVERY)


def look(outage: Outage) -> None:
    """Looks at Redis and, if it works, at the queues; once, and without an error."""
    try:
        check(get_connection())
    except (redis.exceptions.RedisError, RedisUnavailable) as error:
        outage.goes_on(error)
    except Exception as error:  # noqa: BLE001  # the next look comes
        event(logging.DEBUG, "alerts could not look", error=str(error))
    else:
        outage.over()


def _post(alert: Alert) -> None:
    """``{"text": ..., "kind": ..., "subject": ..., "link": ...}``: chats such as Slack and Mattermost show ``text``.

    Redirects are not followed. Credentials are those of the URL only: requests would also send those of ``.netrc``.
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
    except requests.RequestException as error:  # it names the address, whose path is a secret
        raise RQJobsError(f"ALERT_URL cannot be reached: {type(error).__name__}") from None
    if status >= 300:  # noqa: PLR2004
        raise RQJobsError(f"ALERT_URL answers {status}")


def _mail(alert: Alert) -> None:
    """By SMTP_URL, past the queues: they may be what is broken."""
    settings = get_settings()
    assert settings.alert_email is not None
    message = EmailMessage()
    message["From"], message["To"] = settings.email_from, settings.alert_email
    message["Subject"] = f"rqjobs: {alert.kind}: {alert.subject}"
    message.set_content("\n\n".join(filter(None, (alert.text, alert.link))) + "\n")
    with sign_in(parse_smtp_url(settings.smtp_url.get_secret_value()), _SECONDS) as server:
        server.send_message(message)
