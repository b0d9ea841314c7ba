"""Sessions of the dashboard: a cookie with the id of a record in Redis, which is deleted at the end of the session."""

from __future__ import annotations

import contextlib
import hmac
import json
import secrets
import time
from datetime import timedelta
from hashlib import sha256

import redis
from flask import Flask, request
from flask.sessions import SecureCookieSessionInterface

from rqjobs.broker.connection import get_connection
from rqjobs.broker.keys import session as session_key

_RENEW_AFTER = 60
"""Seconds after which a use extends the record's time to live, so that not every page writes to Redis."""
_CLOCKS_DIFFER = 60
"""The most seconds by which the clock of another machine with the dashboard may be ahead."""
SECURE_PREFIX = "__Host-"
"""The prefix of cookies that browsers accept only by https, and only for this host."""


class CookieSessions(SecureCookieSessionInterface):
    """Flask's signed cookie. It contains the id of a session, a CSRF token, and messages to show."""

    def get_cookie_name(self, app: Flask) -> str:
        """Returns the cookie's name, with the ``__Host-`` prefix behind https."""
        return cookie_name(super().get_cookie_name(app))

    def get_cookie_secure(self, app: Flask) -> bool:
        """Returns whether the browser may send the cookie only by https: if this request came by https."""
        return super().get_cookie_secure(app) or request.is_secure


def cookie_name(name: str) -> str:
    """Returns the name of a cookie for the scheme of the current request."""
    return SECURE_PREFIX + name if request.is_secure else name


class SignIns:
    """The sessions of one dashboard, each a key in Redis.

    Redis has the SHA-256 of an id, not the id, so an attacker who can read Redis cannot use it. The cookie with the id
    and the record are signed with the app's key, so an attacker who can write to Redis makes no session, and none that
    has ended last longer.
    """

    def __init__(self, key: bytes, lifetime: timedelta, idle: timedelta) -> None:
        """Sets the rules.

        Args:
            key: signs the records. It changes with the user name or the password, which ends all sessions.
            lifetime: the time after which a session ends.
            idle: the time without use after which a session ends.
        """
        self._key = key
        self._lifetime = int(lifetime.total_seconds())
        self._idle = min(int(idle.total_seconds()), self._lifetime)

    def start(self) -> str:
        """Writes a new session and returns its id.

        Raises:
            RedisUnavailable: Redis does not answer, or accepts no writes.
        """
        session_id = secrets.token_urlsafe(32)
        get_connection().set(_key(session_id), self._record(session_id, time.time()), ex=self._idle)
        return session_id

    def is_live(self, session_id: str, *, renew: bool) -> bool:
        """Returns whether this session has not ended.

        Args:
            session_id: the result of :meth:`start`.
            renew: whether this request counts as use of the session.

        Raises:
            RedisUnavailable: Redis does not answer.
        """
        key, client = _key(session_id), get_connection()
        pipeline = client.pipeline(transaction=False)
        pipeline.get(key)
        pipeline.ttl(key)
        record, left = pipeline.execute(raise_on_error=False)
        age = self._age(session_id, record)
        if age is None:
            return False
        wanted = min(self._idle, int(self._lifetime - age) + 1)
        if renew and isinstance(left, int) and left < wanted - _RENEW_AFTER:
            with contextlib.suppress(redis.exceptions.ResponseError):  # a replica in a failover: stays valid
                client.expire(key, wanted)
        return True

    def end(self, session_id: str) -> None:
        """Ends this session, in every browser that has its cookie.

        Raises:
            RedisUnavailable: Redis does not answer; the session stays valid.
        """
        get_connection().delete(_key(session_id))

    def _record(self, session_id: str, started: float) -> str:
        signature = hmac.digest(self._key, f"{session_id}\0{started!r}".encode(), "sha256").hex()
        return json.dumps({"started": started, "signature": signature})

    def _age(self, session_id: str, record: object) -> float | None:
        """Returns the seconds since the start of the session ``record``; None if it has ended or cannot be read."""
        if isinstance(record, redis.exceptions.ResponseError) or not isinstance(record, bytes):
            return None
        try:
            found = json.loads(record)
            started = float(found["started"])
            ours = hmac.compare_digest(record, self._record(session_id, started).encode())
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return None
        age = time.time() - started
        return max(age, 0.0) if ours and -_CLOCKS_DIFFER <= age < self._lifetime else None


def _key(session_id: str) -> str:
    return session_key(sha256(session_id.encode()).hexdigest())
