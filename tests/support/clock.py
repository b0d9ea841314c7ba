"""A clock of the test's own for scripts in Redis: time passes when the test says so, however slow the machine is."""

from __future__ import annotations

import pytest
import redis as redis_py
from redis.commands.core import Script

from rqjobs import ratelimit
from rqjobs.scripts import source

_KEY = "the-tests-clock"


class RedisClock:
    """What the scripts of rqjobs.ratelimit take for the time."""

    def __init__(self, redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
        self._redis = redis
        redis.hset(_KEY, mapping={"seconds": 1_000_000, "microseconds": 0})
        monkeypatch.setattr(ratelimit, "load_script", self._script)

    def pass_(self, seconds: float) -> None:
        """Lets time pass."""
        now = int(self._redis.hget(_KEY, "seconds") or 0) * 1_000_000 + int(self._redis.hget(_KEY, "microseconds") or 0)
        whole, rest = divmod(now + round(seconds * 1_000_000), 1_000_000)
        self._redis.hset(_KEY, mapping={"seconds": whole, "microseconds": rest})

    @staticmethod
    def _script(name: str) -> Script:
        asked = b"redis.call('TIME')"
        text = source(name)
        assert asked in text
        answered = f"redis.call('HMGET', '{_KEY}', 'seconds', 'microseconds')".encode()
        return Script(None, text.replace(asked, answered))  # type: ignore[arg-type]
