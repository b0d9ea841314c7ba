"""Connects to ``redis+sentinel://`` addresses, and follows the Sentinels to a new primary."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import weakref
from typing import Any
from urllib.parse import parse_qsl, unquote

from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from rqjobs.broker.client import Client
from rqjobs.config.settings import split_url

_EVERY = 0.5
"""Seconds between two queries to the Sentinels. In a planned failover the old primary stays alive and accepts jobs,
which are lost, until it becomes a replica about ten seconds later; no error reports that."""


class _Sentinels(Sentinel):
    """redis-py's list of Sentinels, except that it takes the primary's address from another command of Sentinel."""

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Returns the address that Sentinel gives to clients: that of a new primary as soon as it is promoted."""
        listed = super().discover_master(service_name)  # type: ignore[no-untyped-call]
        address: Any = self.sentinels[0].sentinel_get_master_addr_by_name(service_name)
        return tuple(address or listed)


_lock = threading.Lock()
_pools: weakref.WeakSet[SentinelConnectionPool] = weakref.WeakSet()
_watching = False  # whether a thread of this process queries the Sentinels


def _forget() -> None:
    """Resets the state after a fork: the child has no such thread, and the parent's may have held the lock."""
    global _lock, _watching  # noqa: PLW0603
    _lock = threading.Lock()
    _watching = False
    _pools.clear()


os.register_at_fork(after_in_child=_forget)


def connect_to_primary(url: str, options: dict[str, Any]) -> Client:
    """Returns a client for the primary that the Sentinels of ``url`` name; it follows a failover within a second.

    Raises:
        ValueError: ``url`` names no service.
    """
    parts = split_url(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    service, _, db = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError("redis+sentinel:// needs the service's name: redis+sentinel://host:26379/mymaster/0")
    sentinels = []
    for host in hosts.split(","):
        name, _, port = host.rpartition(":") if ":" in host else (host, "", "26379")
        sentinels.append((name, int(port)))
    username, _, password = credentials.partition(":")
    query = dict(parse_qsl(parts.query))
    login = {"username": unquote(username) or None, "password": unquote(password) or None}
    tls = {"ssl": True} if query.get("ssl") == "true" else {}
    asked = {"retry": Retry(NoBackoff(), 0), "socket_connect_timeout": options["socket_connect_timeout"]}
    sentinel = _Sentinels(sentinels, sentinel_kwargs=tls | asked, **login, **tls, db=int(db or 0), **options)  # type: ignore[no-untyped-call]
    client: Client = sentinel.master_for(service, redis_class=Client)  # type: ignore[no-untyped-call]
    _watch(client.connection_pool)
    return client


def _watch(pool: Any) -> None:
    global _watching  # noqa: PLW0603
    with _lock:
        _pools.add(pool)
        if not _watching:
            _watching = True
            threading.Thread(target=_run, name="rqjobs-sentinel", daemon=True).start()


def _run() -> None:
    global _watching  # noqa: PLW0603
    while True:
        time.sleep(_EVERY)
        with _lock:
            pools = list(_pools)
            if not pools:
                _watching = False
                return
        for pool in pools:
            with contextlib.suppress(RedisError, OSError):
                _follow(pool)
        del pools, pool


def _follow(pool: Any) -> None:
    """Shuts down the connections to a former primary, so that their users connect to the new one."""
    _newest_first(pool.sentinel_manager, pool.service_name)
    primary = pool.get_master_address()
    for connection in list(pool._in_use_connections):  # noqa: SLF001  # redis-py closes idle ones only
        connected: Any = connection._sock  # noqa: SLF001
        if connected is not None and (connection.host, connection.port) != primary:
            with contextlib.suppress(OSError):  # only shut down: another thread may be reading from it
                connected.shutdown(socket.SHUT_RDWR)


def _newest_first(manager: Any, service: str) -> None:
    """Puts the Sentinel with the latest failover first: the others learn of it up to two seconds later."""
    newest, first = -1, None
    for sentinel in list(manager.sentinels):
        with contextlib.suppress(RedisError, OSError):
            state = sentinel.sentinel_master(service)
            if int(state.get("config-epoch", 0)) > newest:
                newest, first = int(state.get("config-epoch", 0)), sentinel
    if first is not None:
        manager.sentinels.sort(key=lambda one: one is not first)
