"""Endpoints in the database: their events, secrets, and whether they answer."""

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
"""How long, by default, the previous secret signs as well after a rotation."""


_MOST_KEPT = MOST_SIGNATURES - 1
"""Previous secrets that are kept: with the present one, as many as a request carries signatures."""


class EndpointExists(RQJobsError, ValueError):
    """An endpoint of this name is registered already.

    Attributes:
        name: the name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"the endpoint {name!r} is registered already; to change it: replace=True (rqjobs webhooks add --replace)"
        )


class UnknownEndpoint(RQJobsError, LookupError):
    """No endpoint of this name or URL is known."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"no endpoint {name!r} is known; see them with: rqjobs webhooks endpoints")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One receiver."""

    name: str
    """Its name; its URL where it was never registered and became known by failing."""
    url: str
    events: tuple[str, ...] = ()
    """What it is subscribed to: exact names, ``booking.*``, or ``*``."""
    enabled: bool = True
    reason: str | None = None
    """Why it is disabled."""
    failing_since: datetime | None = None
    """When the first delivery failed after its last success."""
    created_at: datetime
    kept_secrets: tuple[str, ...] = field(default=(), repr=False)
    """Its own signing secrets as the database keeps them, newest first."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Its own signing secrets in clear, newest first; without any, WEBHOOK_SIGNING_SECRET signs.

        Raises:
            UnreadableSecret: one is encrypted under a key that this process does not have.
        """
        ring = keyring()
        return tuple(ring.decrypt(secret, secret_place(self.name)) for secret in self.kept_secrets)

    def wants(self, event: str) -> bool:
        """Whether it is subscribed to ``event``."""
        return any(
            pattern in ("*", event) or (pattern.endswith(".*") and event.startswith(pattern[:-1]))
            for pattern in self.events
        )


def make_secret() -> str:
    """A new signing secret: ``whsec_`` and 32 random bytes."""
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
    """Registers an endpoint; with ``replace``, changes the URL of the one of this name, and what else is given.

    Returns:
        The endpoint, and the secret that was made or given: it is never returned again. None where ``replace`` kept
        the endpoint's secret.

    Raises:
        EndpointExists: the name is registered, and ``replace`` is not set.
        ValueError: the name, the URL, an event or the secret is none, or the name would be mistaken for a URL.
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
    """Gives an endpoint a new secret; for ``keep_previous`` (24 hours) the one before signs as well.

    Secrets of earlier rotations keep their own end, or end with ``keep_previous`` if that is sooner. The four newest of
    them are kept, since a request carries five signatures at most. With 0 only the new secret signs.

    Raises:
        UnknownEndpoint: there is none of this name.
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
    """Enables an endpoint (``reason`` None) or disables it for ``reason``. Workers notice within seconds.

    Returns:
        The names of the endpoints meant: a URL may be that of several.

    Raises:
        UnknownEndpoint: none is known by this name or URL.
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
    """Forgets an endpoint; its deliveries stay in the log.

    Raises:
        UnknownEndpoint: there is none of this name.
    """
    ensure_schema(engine)
    with engine.begin() as connection:
        if connection.execute(delete(endpoints).where(endpoints.c.name == name)).rowcount == 0:
            raise UnknownEndpoint(name)


def list_endpoints(engine: Engine, *, limit: int | None = None, named: str | None = None) -> list[Endpoint]:
    """All endpoints by name; with ``limit`` at most that many, the disabled and the failing first.

    Args:
        engine: the database.
        limit: how many at most.
        named: only those of this name or URL.
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
    """The endpoint of each of ``keys`` that is known, in one SELECT.

    A key is the name of a registered endpoint, or the :func:`endpoint_key` of a URL that jobs name themselves. A URL
    never finds the endpoint that is registered with it: that endpoint's secret and state are for its own jobs only.
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
    """What the secrets of the endpoint ``name`` belong to, for their encryption."""
    return (f"the signing secret of {name!r}", "endpoint", name)


def encrypted(name: str, secret: str) -> str:
    """``secret`` as the table keeps it for the endpoint ``name``."""
    return keyring().encrypt(secret, secret_place(name), "database")


def _previous(row: Any) -> list[tuple[str, int]]:
    """The previous secrets that still sign, newest first, each with its end (Unix milliseconds)."""
    found, now = [], _now_ms()
    for word in (row.previous_secret or "").split():
        secret, _, end = word.partition("@")  # written by an older rqjobs, it has no end of its own
        until = int(end or row.previous_until_ms or 0)
        if until > now:
            found.append((secret, until))
    return found


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _now_ms() -> int:
    return int(time.time() * 1000)
