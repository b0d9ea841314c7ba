"""The endpoints in the database: their events, secrets, and health."""

from __future__ import annotations

import base64
import os
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, delete, or_, select, update
from sqlalchemy.exc import IntegrityError

from rqjobs.config.encryption import keyring
from rqjobs.database.schema import ensure_schema
from rqjobs.database.webhook_tables import endpoint_key, endpoints
from rqjobs.errors import RQJobsError
from rqjobs.jobs.base import EVENT_NAME
from rqjobs.jobs.webhook import check_url
from rqjobs.security.signing import MOST_SIGNATURES, parse_secret

_EVENT = re.compile(EVENT_NAME)
KEEP_PREVIOUS = timedelta(hours=24)
"""The default time for which the previous secret also signs after a rotation."""


_MOST_KEPT = MOST_SIGNATURES - 1
"""The most previous secrets: together with the current one as many as a request may have signatures."""


class EndpointExists(RQJobsError, ValueError):
    """An endpoint with this name is registered already.

    Attributes:
        name: the name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"the endpoint {name!r} is registered already; to change it: replace=True (rqjobs webhooks add --replace)"
        )


class UnknownEndpoint(RQJobsError, LookupError):
    """There is no endpoint with this name or URL."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"no endpoint {name!r} is known; see them with: rqjobs webhooks endpoints")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One endpoint."""

    name: str
    """Its name; the URL for one that is not registered, but was recorded because deliveries failed."""
    url: str
    events: tuple[str, ...] = ()
    """Its subscriptions: exact names, ``booking.*``, or ``*``."""
    enabled: bool = True
    reason: str | None = None
    """Why it is disabled."""
    failing_since: datetime | None = None
    """The time of the first failed delivery after the last success."""
    created_at: datetime
    kept_secrets: tuple[str, ...] = field(default=(), repr=False)
    """Its own signing secrets as stored in the database, newest first."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """The decrypted signing secrets, newest first; without any, WEBHOOK_SIGNING_SECRET signs.

        Raises:
            UnreadableSecret: one is encrypted under a key that this process does not have.
        """
        ring = keyring()
        return tuple(ring.decrypt(secret, secret_place(self.name)) for secret in self.kept_secrets)

    def wants(self, event: str) -> bool:
        """Returns whether it has subscribed to ``event``."""
        return any(
            pattern in ("*", event) or (pattern.endswith(".*") and event.startswith(pattern[:-1]))
            for pattern in self.events
        )


def make_secret() -> str:
    """Returns a new signing secret: ``whsec_`` and 32 random bytes."""
    return "whsec_" + base64.b64encode(os.urandom(32)).decode()


def add_endpoint(
    engine: Engine,
    name: str,
    url: str,
    *,
    events: Sequence[str] | None = None,
    secret: str | None = None,
    replace: bool = False,
) -> tuple[Endpoint, str | None]:
    """Registers an endpoint; with ``replace``, changes the URL of an existing one, and the other values that are given.

    Returns:
        The endpoint, and the new secret, which cannot be read again. None if ``replace`` kept the endpoint's secret.

    Raises:
        EndpointExists: the name is registered, and ``replace`` is not set.
        ValueError: the name, the URL, an event or the secret is invalid, or the name looks like a URL.
    """
    _check(name, url, events or (), secret)
    ensure_schema(engine)
    values: dict[str, Any] = {"url": url, "url_key": endpoint_key(url)}
    with engine.begin() as connection:
        known = connection.execute(select(endpoints).where(endpoints.c.name == name)).one_or_none()
        if known is not None and not replace:
            raise EndpointExists(name)
        if known is None or known.secret is None:
            secret = secret or make_secret()
        if secret is not None:
            values["secret"] = encrypted(name, secret)
        if events is not None:
            values["events"] = list(events)
        if known is None:
            fresh = {"events": ["*"], "name": name, "enabled": True, "created_ms": _now_ms()}
            try:
                connection.execute(endpoints.insert().values(fresh | values))
            except IntegrityError:  # registered by another process since the SELECT
                raise EndpointExists(name) from None
        else:
            if url != known.url:
                values["failing_since_ms"] = None
            connection.execute(update(endpoints).where(endpoints.c.name == name).values(**values))
        row = connection.execute(select(endpoints).where(endpoints.c.name == name)).one()
    return _endpoint(row), secret


def _check(name: str, url: str, events: Iterable[str], secret: str | None) -> None:
    if not name.isprintable() or not name.strip() or "://" in name or endpoint_key(name) != name:
        raise ValueError(f"{name!r} is not a name: printable, at most 255 bytes, and not a URL")
    check_url(url)
    for pattern in events:
        if pattern != "*" and not _EVENT.fullmatch(pattern.removesuffix(".*")):
            raise ValueError(f"{pattern!r} fits no event; write a name such as booking.created, or booking.*, or *")
    if secret is not None:
        parse_secret(secret)


def rotate_secret(engine: Engine, name: str, *, keep_previous: timedelta = KEEP_PREVIOUS) -> str:
    """Makes a new secret for an endpoint; for ``keep_previous`` (24 hours) the old one signs as well.

    Secrets of earlier rotations end at their own time, or after ``keep_previous`` if that is sooner. The four newest of
    them are kept, because a request has at most five signatures. With 0 only the new secret signs.

    Raises:
        UnknownEndpoint: there is none with this name.
    """
    ensure_schema(engine)
    secret = make_secret()
    until = _now_ms() + int(keep_previous.total_seconds() * 1000)
    this = endpoints.c.name == name
    with engine.begin() as connection:
        row = connection.execute(select(endpoints).where(this).with_for_update()).one_or_none()
        if row is None:
            raise UnknownEndpoint(name)
        kept = ([(row.secret, until)] if row.secret else []) + [(old, min(end, until)) for old, end in _previous(row)]
        change = {
            "previous_secret": " ".join(f"{old}@{end}" for old, end in kept[:_MOST_KEPT]),
            "previous_until_ms": until,
            "secret": encrypted(name, secret),
        }
        connection.execute(update(endpoints).where(this).values(change))
    return secret


def set_enabled(engine: Engine, name_or_url: str, *, reason: str | None) -> list[str]:
    """Enables an endpoint (``reason`` None) or disables it for ``reason``. Workers apply it within seconds.

    Returns:
        The names of the changed endpoints: several may have the same URL.

    Raises:
        UnknownEndpoint: there is none with this name or URL.
    """
    ensure_schema(engine)
    key = endpoint_key(name_or_url)
    meant = or_(endpoints.c.name == key, endpoints.c.url_key == key)
    change = {
        "enabled": reason is None,
        "reason": reason,
        "failing_since_ms": None,
        "disabled_ms": None if reason is None else _now_ms(),
    }
    with engine.begin() as connection:
        names = list(connection.execute(select(endpoints.c.name).where(meant)).scalars())
        if not names:
            raise UnknownEndpoint(name_or_url)
        connection.execute(update(endpoints).where(meant).values(change))
    return names


def remove_endpoint(engine: Engine, name: str) -> None:
    """Deletes an endpoint; its deliveries stay in the log.

    Raises:
        UnknownEndpoint: there is none with this name.
    """
    ensure_schema(engine)
    with engine.begin() as connection:
        if connection.execute(delete(endpoints).where(endpoints.c.name == name)).rowcount == 0:
            raise UnknownEndpoint(name)


def list_endpoints(engine: Engine, *, limit: int | None = None, named: str | None = None) -> list[Endpoint]:
    """Returns all endpoints by name; with ``limit`` at most that many, disabled and failing ones first.

    Args:
        engine: the database.
        limit: the most endpoints to return.
        named: only those with this name or URL.
    """
    ensure_schema(engine)
    query = select(endpoints).order_by(endpoints.c.name)
    if limit is not None:
        query = select(endpoints).order_by(
            endpoints.c.enabled, endpoints.c.failing_since_ms.is_(None), endpoints.c.name
        ).limit(limit)  # fmt: skip
    if named is not None:
        query = query.where(or_(endpoints.c.name == endpoint_key(named), endpoints.c.url_key == endpoint_key(named)))
    with engine.connect().execution_options(sqlite_read=True) as connection:
        return [_endpoint(row) for row in connection.execute(query)]


def find_endpoints(engine: Engine, keys: Iterable[str]) -> dict[str, Endpoint]:
    """Returns the endpoints of those of ``keys`` that exist, in one SELECT.

    A key is the name of a registered endpoint, or the :func:`endpoint_key` of a URL in a job. A URL never finds the
    endpoint that is registered with it: that endpoint's secret and state are only for its own jobs.
    """
    ensure_schema(engine)
    query = select(endpoints).where(endpoints.c.name.in_(list(keys)))
    with engine.connect().execution_options(sqlite_read=True) as connection:
        return {row.name: _endpoint(row) for row in connection.execute(query)}


def _endpoint(row: Any) -> Endpoint:
    secrets = ([row.secret] if row.secret else []) + [old for old, _end in _previous(row)]
    return Endpoint(
        name=row.name,
        url=row.url,
        events=tuple(row.events or ()),
        enabled=row.enabled,
        reason=row.reason,
        failing_since=None if row.failing_since_ms is None else _moment(row.failing_since_ms),
        created_at=_moment(row.created_ms),
        kept_secrets=tuple(secrets),
    )


def secret_place(name: str) -> tuple[str, ...]:
    """Returns the place of the secrets of endpoint ``name``, for their encryption."""
    return (f"the signing secret of {name!r}", "endpoint", name)


def encrypted(name: str, secret: str) -> str:
    """Returns ``secret`` encrypted for the row of the endpoint ``name``."""
    return keyring().encrypt(secret, secret_place(name), "database")


def _previous(row: Any) -> list[tuple[str, int]]:
    """Returns the previous secrets that still sign, newest first, each with its end (Unix milliseconds)."""
    found, now = [], _now_ms()
    for word in (row.previous_secret or "").split():
        secret, _, end = word.partition("@")  # one from an older rqjobs has no end of its own
        until = int(end or row.previous_until_ms or 0)
        if until > now:
            found.append((secret, until))
    return found


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _now_ms() -> int:
    return int(time.time() * 1000)
