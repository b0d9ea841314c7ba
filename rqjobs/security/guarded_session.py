"""The SSRF guard for requests: a session that connects only to checked addresses.

TLS names, certificates and the Host header are those of the URL; the guard only chooses the address of the socket.
"""

from __future__ import annotations

import socket
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from rqjobs.security.ssrf import Guard


def _connect(connection: HTTPConnection, guard: Guard) -> socket.socket:
    """Returns a socket to the first address of the connection's host that answers.

    All addresses are checked before the first try.
    """
    host, port = connection.host.strip("[]").lower().rstrip("."), connection.port
    failure: OSError | None = None
    timeout: Any = connection.timeout
    for family, address in guard.resolve(host, port):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            for option in connection.socket_options or ():
                sock.setsockopt(*option)
            if isinstance(timeout, int | float):
                sock.settimeout(timeout)
            sock.connect((address, port))
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    if isinstance(failure, TimeoutError):
        raise ConnectTimeoutError(connection, f"connecting to {host} took longer than {timeout} s")
    raise NewConnectionError(connection, f"connecting to {host} failed: {failure}")


def _pools(guard: Guard) -> dict[str, type[HTTPConnectionPool]]:
    class GuardedHTTP(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return _connect(self, guard)

    class GuardedHTTPS(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return _connect(self, guard)

    class HTTPPool(HTTPConnectionPool):
        ConnectionCls = GuardedHTTP

    class HTTPSPool(HTTPSConnectionPool):
        ConnectionCls = GuardedHTTPS

    return {"http": HTTPPool, "https": HTTPSPool}


class GuardedAdapter(HTTPAdapter):
    """An adapter of requests that raises TargetRefused for a refused target; :func:`guarded_session` uses it.

    A name without an address is a ConnectionError, as in requests.
    """

    def __init__(self, guard: Guard, **options: Any) -> None:
        self._guard = guard
        super().__init__(**options)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Makes the pools, with guarded classes in place of urllib3's connection classes."""
        super().init_poolmanager(*args, **kwargs)
        manager: PoolManager = self.poolmanager
        manager.pool_classes_by_scheme = _pools(self._guard)

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Sends ``request`` if its URL is allowed.

        Raises:
            TargetRefused: it is not.
        """
        self._guard.check_url(request.url or "")
        return super().send(request, *args, **kwargs)


def guarded_session(guard: Guard, *, pool_size: int = 10) -> requests.Session:
    """Returns a session that reaches only targets that ``guard`` allows, also by redirects.

    It ignores proxies of the environment.

    Args:
        guard: the rules.
        pool_size: the number of connections kept per host.
    """
    session = requests.Session()
    session.trust_env = False
    adapter = GuardedAdapter(guard, pool_connections=100, pool_maxsize=pool_size)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session
