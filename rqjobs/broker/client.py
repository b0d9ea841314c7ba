"""A redis-py client that also raises ``RedisUnavailable`` when Redis cannot be used."""

from __future__ import annotations

import time
import weakref
from typing import Any, cast

import redis
from redis import exceptions
from redis.client import Pipeline
from redis.sentinel import MasterNotFoundError

from rqjobs.broker.unreadable import instead, is_reading, is_wrong_type
from rqjobs.errors import RedisUnavailable

_FAILOVER = 3.0
"""Seconds for which a write is retried that a primary refuses for lack of replicas: a failover takes one or two."""
_AGAIN = 0.1
"""Seconds between two attempts to connect."""

_BY_TYPE: dict[type[exceptions.RedisError], tuple[str, str]] = {
    exceptions.AuthenticationError: ("it refuses the login: {said}", "Fix user and password in REDIS_URL"),
    exceptions.BusyLoadingError: ("it is reading its data from disk", "Wait until it has; its log shows how far it is"),
    MasterNotFoundError: (
        "no Sentinel names a primary: {said}",
        "See that the Sentinels run, and that REDIS_URL names the service as they do",
    ),
    exceptions.OutOfMemoryError: (
        "Redis is full",
        "Raise its maxmemory, or delete dead letters: rqjobs failed purge",
    ),
    exceptions.ReadOnlyError: (
        "it is a replica, which takes no jobs",
        "Name the primary in REDIS_URL, or the Sentinels: redis+sentinel://",
    ),
    exceptions.TimeoutError: ("it did not answer in time: {said}", "See whether it is overloaded: rqjobs doctor"),
    exceptions.ConnectionError: ("{said}", "Start it, or fix REDIS_URL"),
}
"""The fault and its fix for each error of redis-py, subclasses before their base classes."""

_BY_TEXT = {
    "NOREPLICAS": (
        "too few replicas follow it, see min-replicas-to-write",
        "Start the replicas; after a failover the new primary takes over by itself",
    ),
    "MISCONF": ("it cannot write its data to disk", "Free disk space; its log says why"),
    "MASTERDOWN": ("it is a replica whose primary is away", "Wait for the failover, or name the primary in REDIS_URL"),
}
"""The same for errors without a class in redis-py, by the beginning of their text."""


def unavailable(error: exceptions.RedisError, address: str) -> RedisUnavailable | None:
    """Returns ``error`` as a RedisUnavailable that is also an instance of its own class; None if Redis can be used.

    Args:
        error: the error of redis-py.
        address: the URL of Redis without its password.
    """
    if isinstance(error, RedisUnavailable):
        return error
    said = str(error).rstrip(".") or type(error).__name__
    found = next((words for kind, words in _BY_TYPE.items() if isinstance(error, kind)), None)
    if found is None and isinstance(error, exceptions.ResponseError):
        found = next((words for code, words in _BY_TEXT.items() if code in said), None)
    if found is None:
        return None
    reason, fix = found
    kind: Any = type(error)
    if kind not in _both:  # an instance of both classes: callers may catch either
        _both[kind] = type(f"{kind.__name__}Unavailable", (RedisUnavailable, kind), {"__module__": __name__})
    both = _both[kind](address, reason.format(said=said), fix)
    vars(both).update({**vars(error), **vars(both)})  # redis-py reads attributes of its own errors
    return both


_both: dict[Any, type[RedisUnavailable]] = {}


def _translated(error: exceptions.RedisError, pool: Any) -> Exception:
    return unavailable(error, _address(pool)) or error


def _address(pool: Any) -> str:
    words = pool.connection_kwargs
    if "path" in words:
        return f"unix://{words['path']}"
    if (service := getattr(pool, "service_name", None)) is not None:
        return f"redis+sentinel://.../{service}"
    return f"redis://{words.get('host', 'localhost')}:{words.get('port', 6379)}"


def _moved(error: exceptions.RedisError, pool: Any) -> bool:
    """Returns whether a primary refused a write for lack of replicas and the Sentinels may name another primary."""
    if "NOREPLICAS" not in str(error) or not hasattr(pool, "get_master_address"):
        return False
    pool.disconnect(inuse_connections=False)  # the next connection looks the primary up again
    return True


class Client(redis.Redis):
    """A redis-py client; if Redis is unreachable, full or a replica, its error is a RedisUnavailable."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Runs one command."""
        until = None
        while True:
            try:
                return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
            except exceptions.RedisError as error:
                if (nothing := instead(args, error)) is not None:
                    return nothing[0]
                if _moved(error, self.connection_pool):
                    until = until or time.monotonic() + _FAILOVER
                    if time.monotonic() < until:
                        time.sleep(_AGAIN)
                        continue
                if (found := _translated(error, self.connection_pool)) is error:
                    if is_wrong_type(error):  # Redis names no key
                        error.args = (f"{error} ({args[0]} {args[1]})",)
                    raise
                raise found from error

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        """Returns a pipeline that raises the same errors."""
        return _Pipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class _Pipeline(Pipeline):
    def execute(self, raise_on_error: bool = True) -> list[Any]:
        try:
            return self._read(raise_on_error) if is_reading() else super().execute(raise_on_error)
        except exceptions.RedisError as error:
            _moved(error, self.connection_pool)
            if (found := _translated(error, self.connection_pool)) is error:
                raise
            raise found from error

    def _read(self, raise_on_error: bool) -> list[Any]:
        """Returns the responses, with empty ones for keys of the wrong type, which are recorded."""
        commands = list(self.command_stack)
        answers = super().execute(raise_on_error=False)
        for place, ((command, _options), answer) in enumerate(zip(commands, answers, strict=True)):
            if (nothing := instead(command, answer)) is not None and raise_on_error:
                answers[place] = nothing[0]
        if raise_on_error:
            self.raise_first_error(commands, answers)  # type: ignore[no-untyped-call]
        return answers

    def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        try:
            return super().immediate_execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except exceptions.RedisError as error:
            if (found := _translated(error, self.connection_pool)) is error:
                raise
            raise found from error


_wrapped: weakref.WeakKeyDictionary[redis.Redis, Client] = weakref.WeakKeyDictionary()


def wrap(connection: Any) -> redis.Redis:
    """Returns a client that raises our errors, over the connection pool of the app's ``connection``.

    The app still owns the pool. A pipeline, a client of a single connection, and objects of other libraries are
    returned unchanged.
    """
    plain = isinstance(connection, redis.Redis) and not isinstance(connection, Client | Pipeline)
    if not plain or connection.connection is not None:
        return cast("redis.Redis", connection)
    client = _wrapped.get(connection)
    if client is None:
        client = _wrapped[connection] = Client(connection_pool=connection.connection_pool)
        client.response_callbacks = connection.response_callbacks
    return client
