"""A clock of the test's own for scripts in Redis: time passes when the test says so, however slow the machine is."""

from __future__ import annotations

import time

import pytest
import redis as redis_py
from redis.commands.core import Script

from rqjobs.broker import rate_limit, rq_schema
from rqjobs.broker.scripts import source
from rqjobs.processors.webhook import breaker

_KEY = "the-tests-clock"


class RedisClock:
    """What the scripts of rqjobs.broker.rate_limit, rqjobs.broker.rq_schema and the circuit breaker take for the time.

    It stands for the module time as well.
    """

    def __init__(self, redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
        self._redis = redis
        self._micros = time.time_ns() // 1000
        self.pass_(0)
        for module in (rate_limit, rq_schema, breaker):
            monkeypatch.setattr(module, "load_script", self._script)

    def time(self) -> float:
        """The Unix time."""
        return self._micros / 1_000_000

    def pass_(self, seconds: float) -> None:
        """Lets time pass."""
        self._micros += round(seconds * 1_000_000)
        whole, rest = divmod(self._micros, 1_000_000)
        self._redis.hset(_KEY, mapping={"seconds": whole, "microseconds": rest})

    @staticmethod
    def _script(name: str) -> Script:
        answered = f"redis.call('HMGET', '{_KEY}', 'seconds', 'microseconds')".encode()
        return Script(None, source(name).replace(b"redis.call('TIME')", answered))  # type: ignore[arg-type]
