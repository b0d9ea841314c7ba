"""All that a Redis holds, as text: whatever RQ has packed is unpacked, since a search in packed text finds nothing."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import redis as redis_py


def everything(redis: redis_py.Redis) -> str:
    """Every key and every value, of every type."""
    return "\n".join(
        text for name in redis.keys("*") for value in (name, _value(redis, name)) for text in _texts(value)
    )


def _value(redis: redis_py.Redis, name: bytes) -> Any:
    match redis.type(name):
        case b"string":
            return redis.get(name)
        case b"hash":
            return redis.hgetall(name)
        case b"list":
            return redis.lrange(name, 0, -1)
        case b"set":
            return list(redis.smembers(name))
        case b"zset":
            return redis.zrange(name, 0, -1)
        case b"stream":
            return redis.xrange(name)
        case other:
            raise AssertionError(f"{name!r} is of type {other!r}: say how it is read")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (text for pair in value.items() for item in pair for text in _texts(item))
    elif isinstance(value, list | tuple):
        yield from (text for item in value for text in _texts(item))
    elif isinstance(value, bytes):
        yield value.decode("latin-1")
        for packed in (value, _decoded(value)):
            with suppress(zlib.error):
                yield zlib.decompress(packed).decode("latin-1")


def _decoded(value: bytes) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:
        return b""
