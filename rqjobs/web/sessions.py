"""Sessions of the dashboard: a cookie that names a record in Redis, which ends when the sign-in ends."""

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
"""Seconds by which the time to live has to fall before it is set again, so that not every page writes to Redis."""
_CLOCKS_DIFFER = 60
"""Seconds by which the clock of another machine that runs the dashboard may be ahead."""
SECURE_PREFIX = "__Host-"
"""A browser takes a cookie of such a name over https only, for this host and no other."""


class CookieSessions(SecureCookieSessionInterface):
    """Flask's signed cookie. It holds the id of a session, a token against forged changes and messages to show."""

    def get_cookie_name(self, app: Flask) -> str:
        """The cookie's name, with the ``__Host-`` prefix behind https."""
        return cookie_name(super().get_cookie_name(app))

    def get_cookie_secure(self, app: Flask) -> bool:
        """Whether the browser sends the cookie by https only: it does when this request came by https."""
        return super().get_cookie_secure(app) or request.is_secure


def cookie_name(name: str) -> str:
    """``name`` of a cookie as the present request's scheme wants it."""
    return SECURE_PREFIX + name if request.is_secure else name


class SignIns:
    """The sign-ins of one dashboard, each a key in Redis.

    Redis holds the SHA-256 of an id, never the id: a reader of Redis cannot use it. The cookie that carries the id is
    signed with the app's key: a writer to Redis cannot make one.
    """

    def __init__(self, login: str, lifetime: timedelta, idle: timedelta) -> None:
        """Sets the rules.

        Args:
            login: text that changes with the user name or the password; a sign-in of another one has ended.
            lifetime: after which a sign-in ends.
            idle: without use, after which a sign-in ends.
        """
        self._login = login
        self._lifetime = int(lifetime.total_seconds())
        self._idle = min(int(idle.total_seconds()), self._lifetime)

    def start(self) -> str:
        """Writes a new sign-in and returns its id.

        Raises:
            RedisUnavailable: Redis does not answer, or takes no writes.
        """
        session_id = secrets.token_urlsafe(32)
        record = json.dumps({"started": time.time(), "login": self._login})
        get_connection().set(_key(session_id), record, ex=self._idle)
        return session_id

    def is_live(self, session_id: str, *, renew: bool) -> bool:
        """Whether this sign-in has not ended.

        Args:
            session_id: what :meth:`start` returned.
            renew: whether this request is a use of it.

        Raises:
            RedisUnavailable: Redis does not answer.
        """
        key, client = _key(session_id), get_connection()
        pipeline = client.pipeline(transaction=False)
        pipeline.get(key)
        pipeline.ttl(key)
        record, left = pipeline.execute(raise_on_error=False)
        age = self._age(record)
        if age is None:
            return False
        wanted = min(self._idle, int(self._lifetime - age) + 1)
        if renew and isinstance(left, int) and left < wanted - _RENEW_AFTER:
            with contextlib.suppress(redis.exceptions.ResponseError):  # a replica during a failover: valid for now
                client.expire(key, wanted)
        return True

    def end(self, session_id: str) -> None:
        """Ends this sign-in, in every browser that has its cookie.

        Raises:
            RedisUnavailable: Redis does not answer; the sign-in goes on.
        """
        get_connection().delete(_key(session_id))

    def _age(self, record: object) -> float | None:
        """Seconds since the sign-in of ``record``; None if it has ended or cannot be read."""
        if isinstance(record, redis.exceptions.ResponseError) or not isinstance(record, bytes):
            return None
        try:
            found = json.loads(record)
            age = time.time() - float(found["started"])
            login = str(found["login"]).encode()
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return None
        ours = hmac.compare_digest(login, self._login.encode())
        return max(age, 0.0) if ours and -_CLOCKS_DIFFER <= age < self._lifetime else None


def _key(session_id: str) -> str:
    return session_key(sha256(session_id.encode()).hexdigest())
