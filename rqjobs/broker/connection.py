"""All connections to Redis: one client per process, safe after a fork and in threads."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any, NamedTuple

import hiredis
import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from rqjobs.broker.client import Client, unavailable, wrap
from rqjobs.broker.embedded import EmbeddedServerError, ensure_server
from rqjobs.config.settings import data_folder, get_settings, split_url
from rqjobs.errors import RedisUnavailable

PASSING = (
    RedisUnavailable,
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
)
"""Errors that may pass: Redis is unreachable, loading or full, or became a replica in a failover."""

_lock = threading.Lock()


class _Shared(NamedTuple):
    pid: int
    url: str
    client: redis.Redis
    kept: list[Any]
    """Idle connections for :func:`ask`."""


_shared: _Shared | None = None
_MOST_KEPT = 16  # of the 100 connections that redis-py's pool allows by default


def redact(url: str) -> str:
    """Returns ``url`` without its password and query, for logs and errors."""
    scheme, slashes, _ = url.partition("://")
    hidden = f"{scheme}://..." if slashes else "..."
    try:
        parts = split_url(url)
    except ValueError:
        return hidden
    if not parts.netloc:
        return url.partition("?")[0] if parts.scheme in ("unix", "embedded") else hidden
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def connect(url: str | None = None, **options: Any) -> redis.Redis:
    """Returns a new client for ``url`` (by default REDIS_URL) after its server has answered.

    ``redis://``, ``rediss://`` (certificates are verified), ``unix://``, ``redis+sentinel://host:port,.../service``
    or ``embedded:[FOLDER]``.

    Args:
        url: the address.
        options: further options of redis-py's client, such as ``socket_timeout``.

    Raises:
        RedisUnavailable: Redis does not answer. No other address is tried.
    """
    url = url if url is not None else get_settings().redis_url.get_secret_value()
    options = {
        "retry": Retry(ExponentialBackoff(cap=0.5, base=0.02), 3),
        "socket_connect_timeout": 5,
    } | options
    try:
        client = _open(url, options)
        client.ping()
    except (redis.exceptions.RedisError, OSError, ValueError, TypeError, EmbeddedServerError) as error:
        # redis-py raises TypeError for an unknown option in the URL's query
        found = unavailable(error, redact(url)) if isinstance(error, redis.exceptions.RedisError) else None
        raise found or RedisUnavailable(redact(url), str(error) or type(error).__name__) from error
    return client


def client_of(connection: redis.Redis | None) -> redis.Redis:
    """Returns the client for one call: over the app's ``connection`` if given, otherwise this process's for REDIS_URL.

    Raises:
        RedisUnavailable: Redis does not answer at the first call; later its commands raise it.
    """
    return get_connection() if connection is None else wrap(connection)


def leave_replica(client: redis.Redis, error: Exception) -> None:
    """Closes the idle connections after a READONLY error, so that new ones go to the current primary."""
    if isinstance(error, redis.exceptions.ReadOnlyError):
        client.connection_pool.disconnect(inuse_connections=False)


def _open(url: str, options: dict[str, Any]) -> redis.Redis:
    scheme, _, rest = url.partition(":")
    if scheme == "embedded":
        folder = Path(rest) if rest else data_folder() / "redis"
        return Client(unix_socket_path=str(ensure_server(folder)), **options)
    if scheme == "redis+sentinel":
        from rqjobs.broker.sentinel import connect_to_primary

        return connect_to_primary(url, options)
    split_url(url)  # checked first: redis-py's errors may show a part of the password as the port
    return Client.from_url(url, **options)


def get_connection() -> redis.Redis:
    """Returns the client of this process for REDIS_URL; it is made at the first call, and again after a fork.

    Raises:
        RedisUnavailable: Redis does not answer at the first call.
    """
    return _current().client


def _current() -> _Shared:
    global _shared  # noqa: PLW0603
    now = os.getpid(), get_settings().redis_url.get_secret_value()
    if (found := _shared) is None or found[:2] != now:
        with _lock:  # another thread may have made it
            if (found := _shared) is None or found[:2] != now:
                found = _shared = _Shared(*now, connect(now[1]), [])
    return found


def ask(*arguments: str | bytes | float) -> Any:
    """Sends one command to REDIS_URL and returns the response, without redis-py's work around it, which costs as much.

    It does not retry. Use it only for commands that the caller can safely repeat through the client.

    Raises:
        RedisUnavailable: Redis does not answer at the first call.
        redis.exceptions.RedisError: the command failed; through the client, with its retries, it may succeed.
    """
    _, _, client, kept = _current()
    pool = client.connection_pool
    try:
        connection = kept.pop()
    except IndexError:
        connection = pool.get_connection()
    try:
        connection.send_packed_command((hiredis.pack_command(arguments),))  # type: ignore[arg-type]  # its types allow one word
        answer = connection.read_response()
    except BaseException:
        connection.disconnect()  # the response may still arrive on it
        pool.release(connection)
        raise
    if len(kept) < _MOST_KEPT:
        kept.append(connection)
    else:
        pool.release(connection)
    return answer


def close_connection() -> None:
    """Closes the client of this process; the next call makes a new one."""
    global _shared  # noqa: PLW0603
    with _lock:
        if _shared is not None:
            _shared.client.close()
            _shared = None
