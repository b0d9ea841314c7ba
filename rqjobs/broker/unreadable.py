"""Keys of the wrong type: a page or command skips them, and names each.

Redis returns WRONGTYPE for a command on a key of the wrong type. Within :func:`reading` a command that only reads gets
the response for a missing key instead, and the key is recorded. Commands that write raise the error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import redis

_FIX = "delete or rename it, and stop what wrote it: redis-cli -u $REDIS_URL DEL"


def _none() -> None:
    return None


_NOTHING: dict[str, tuple[str, Callable[[], Any]]] = {
    verb: (kind, make)
    for kind, make, verbs in (
        ("string", _none, "GET"),
        ("hash", dict, "HGETALL"),
        ("hash", list, "HKEYS HVALS"),
        ("hash", int, "HLEN HEXISTS"),
        ("hash", _none, "HGET"),
        ("list", _none, "LINDEX LPOS"),
        ("list", int, "LLEN"),
        ("list", list, "LRANGE"),
        ("set", set, "SMEMBERS"),
        ("set", int, "SCARD SISMEMBER"),
        ("zset", int, "ZCARD ZCOUNT"),
        ("zset", _none, "ZSCORE ZRANK"),
        ("zset", list, "ZRANGE ZREVRANGE ZRANGEBYSCORE ZREVRANGEBYSCORE"),
        ("stream", list, "XRANGE XREVRANGE"),
        ("stream", int, "XLEN"),
    )
    for verb in verbs.split()
}
"""For each command that reads one key: the type of the key, and the answer for one that does not exist."""

_OF_EACH = {"HMGET": "hash", "ZMSCORE": "zset"}
"""The types of the keys of commands whose answer has a place for each argument after the key."""


@dataclass(frozen=True)
class UnreadableKey:
    """One key of the wrong type."""

    name: str
    """The key; bytes that are not UTF-8 are replaced."""
    kind: str
    """The type that it should have, as Redis names it."""

    @property
    def fault(self) -> str:
        """The fault, in one line."""
        return f"(unreadable) {self.name}: it should be a {_SPOKEN.get(self.kind, self.kind)}"

    @property
    def fix(self) -> str:
        """The fix, in one line."""
        return f"{_FIX} {self.name}"

    @property
    def text(self) -> str:
        """Fault and fix in one line."""
        return f"{self.fault}; {self.fix}"


_SPOKEN = {"zset": "sorted set"}

Noted = dict[str, UnreadableKey]
"""The keys that were found unreadable, by name."""

_noted: ContextVar[Noted | None] = ContextVar("rqjobs_unreadable", default=None)


@contextmanager
def reading() -> Iterator[Noted]:
    """Within the block, reads of keys of the wrong type by this thread return nothing; yields the keys found.

    Keys found in an inner block are also recorded in the outer one.
    """
    outer, mine = _noted.get(), Noted()
    token = _noted.set(mine)
    try:
        yield mine
    finally:
        _noted.reset(token)
        if outer is not None:
            outer.update(mine)


def unreadable_keys(connection: redis.Redis) -> list[UnreadableKey]:
    """Returns the keys recorded in the current block of :func:`reading` that are still unreadable, by name."""
    found = sorted((_noted.get() or {}).values(), key=lambda each: each.name)
    return [
        each
        for each, kind in zip(found, types_of([each.name for each in found], connection), strict=True)
        if kind not in (each.kind, "none")
    ]


def types_of(names: Sequence[str], connection: redis.Redis) -> list[str]:
    """Returns the type of each of these keys in Redis' words, such as ``zset``; ``none`` for a missing key."""
    with connection.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.type(name)
        return [kind.decode() for kind in pipeline.execute()]


def is_noted(name: str) -> bool:
    """Returns whether this key is recorded as unreadable in the current block of :func:`reading`."""
    return name in (_noted.get() or ())


def is_reading() -> bool:
    """Returns whether the current code runs within :func:`reading`."""
    return _noted.get() is not None


def is_wrong_type(error: object) -> bool:
    """Returns whether ``error`` is Redis' error for a key of the wrong type."""
    return isinstance(error, redis.exceptions.ResponseError) and "WRONGTYPE" in str(error)


def instead(command: Sequence[Any], error: object) -> tuple[Any] | None:
    """Records the key that ``command`` could not read.

    Returns:
        The response for a missing key, in a tuple; None if the error has another cause, the command also writes, or
        this is not within :func:`reading`.
    """
    noted = _noted.get()
    if noted is None or not is_wrong_type(error):
        return None
    verb = str(command[0]).upper()
    answer: Any
    if verb in _OF_EACH:
        kind, answer = _OF_EACH[verb], [None] * (len(command) - 2)
    elif verb in _NOTHING:
        kind, make = _NOTHING[verb]
        answer = make()
    else:
        return None
    name = command[1].decode(errors="replace") if isinstance(command[1], bytes) else str(command[1])
    noted[name] = UnreadableKey(name, kind)
    return (answer,)
