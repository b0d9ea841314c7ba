"""Redis connections, made in this one place: one client a process, safe after a fork and in threads."""

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
"""Errors of Redis that a later try may not have: it is away or loading, full, or a replica since a failover."""

_lock = threading.Lock()


class _Shared(NamedTuple):
    pid: int
    url: str
    client: redis.Redis
    kept: list[Any]
    """Connections that :func:`ask` has used and will use again."""


_shared: _Shared | None = None
_MOST_KEPT = 16  # of the 100 that redis-py's pool gives out by default


def redact(url: str) -> str:
    """``url`` without its password and query, fit for logs and errors."""
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
    """A new client for ``url`` (REDIS_URL by default), its server seen alive.

    ``redis://``, ``rediss://`` (certificates verified), ``unix://``, ``redis+sentinel://host:port,.../service``
    or ``embedded:[FOLDER]``.

    Args:
        url: the address.
        options: more for redis-py's client, such as ``socket_timeout``.

    Raises:
        RedisUnavailable: it does not answer. Nothing else is tried.
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
    """The client for one call: over ``connection`` if the app gave one, else that of this process for REDIS_URL.

    Raises:
        RedisUnavailable: Redis does not answer at the first call; later its commands raise it.
    """
    return get_connection() if connection is None else wrap(connection)


def leave_replica(client: redis.Redis, error: Exception) -> None:
    """Closes the connections after READONLY, so that the next ones go to the present primary."""
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
    split_url(url)  # redis-py's errors show what they took for the port
    return Client.from_url(url, **options)


def get_connection() -> redis.Redis:
    """The client of this process for REDIS_URL, made at the first call, and anew after a fork.

    Raises:
        RedisUnavailable: Redis does not answer at the first call.
    """
    return _current().client


def _current() -> _Shared:
    global _shared  # noqa: PLW0603
    now = os.getpid(), get_settings().redis_url.get_secret_value()
    if (found := _shared) is None or found[:2] != now:
        with _lock:  # another thread may have been quicker
            if (found := _shared) is None or found[:2] != now:
                found = _shared = _Shared(*now, connect(now[1]), [])
    return found


def ask(*arguments: str | bytes | float) -> Any:
    """The answer to one command at REDIS_URL, without what redis-py does around each: that costs as much as the rest.

    Nothing is tried again, so this is for commands that may safely be sent a second time, through the client.

    Raises:
        RedisUnavailable: Redis does not answer at the first call.
        redis.exceptions.RedisError: it did not work this way; redis-py's may, with its retries.
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
        connection.disconnect()  # perhaps the answer is still to come
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
