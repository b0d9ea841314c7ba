"""``redis+sentinel://`` addresses, and following the Sentinels to another primary."""

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
"""Seconds between two looks at the Sentinels. The old primary of a planned failover stays alive and takes jobs, which
are lost, until the Sentinels make it a replica some ten seconds later: there is no error to wait for."""


class _Sentinels(Sentinel):
    """redis-py's list of Sentinels, which goes by an address that they change last in a failover."""

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """The primary's address, as the Sentinel gives it to clients: the new one as soon as it is promoted."""
        listed = super().discover_master(service_name)  # type: ignore[no-untyped-call]
        address: Any = self.sentinels[0].sentinel_get_master_addr_by_name(service_name)
        return tuple(address or listed)


_lock = threading.Lock()
_pools: weakref.WeakSet[SentinelConnectionPool] = weakref.WeakSet()
_watching = False  # whether a thread of this process looks


def _forget() -> None:
    """A forked process has no such thread; its parent's may have held the lock at the fork."""
    global _lock, _watching  # noqa: PLW0603
    _lock = threading.Lock()
    _watching = False
    _pools.clear()


os.register_at_fork(after_in_child=_forget)


def connect_to_primary(url: str, options: dict[str, Any]) -> Client:
    """A client for the primary that the Sentinels of ``url`` name; it moves to another one within a second.

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
    """Ends the connections to a primary that is one no more; their users connect anew, to the new one."""
    _newest_first(pool.sentinel_manager, pool.service_name)
    primary = pool.get_master_address()
    for connection in list(pool._in_use_connections):  # noqa: SLF001  # redis-py closes idle ones only
        connected: Any = connection._sock  # noqa: SLF001
        if connected is not None and (connection.host, connection.port) != primary:
            with contextlib.suppress(OSError):  # not closed here: another thread reads from it
                connected.shutdown(socket.SHUT_RDWR)


def _newest_first(manager: Any, service: str) -> None:
    """Puts first the Sentinel with the latest failover: the others have it up to two seconds later."""
    newest, first = -1, None
    for sentinel in list(manager.sentinels):
        with contextlib.suppress(RedisError, OSError):
            state = sentinel.sentinel_master(service)
            if int(state.get("config-epoch", 0)) > newest:
                newest, first = int(state.get("config-epoch", 0)), sentinel
    if first is not None:
        manager.sentinels.sort(key=lambda one: one is not first)
