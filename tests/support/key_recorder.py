"""Which keys a Redis gets, of which type, and which script or client wrote each: read from MONITOR."""

from __future__ import annotations

import re
import threading
from importlib import resources
from typing import NamedTuple, Self

import redis as redis_py

from rqjobs.broker.scripts import load_script

_TYPES = {
    "string": ("set", "setex", "psetex", "incr", "incrby", "setnx"),
    "hash": ("hset", "hsetnx", "hmset", "hincrby", "hincrbyfloat"),
    "list": ("rpush", "lpush", "lmove"),
    "set": ("sadd",),
    "sorted set": ("zadd", "zincrby"),
    "stream": ("xadd",),
}
_TYPE_OF = {command: name for name, commands in _TYPES.items() for command in commands}
SCRIPTS = sorted(
    path.name.removesuffix(".lua")
    for path in resources.files("rqjobs.broker.lua").iterdir()
    if path.name.endswith(".lua")
)
_END = "the recording ends here"
_LINE = re.compile(rb"^[\d.]+ \[\d+ (\S+)\] (.*)$", re.DOTALL)
_WORD = re.compile(rb'"((?:[^"\\]|\\.)*)"')


class Write(NamedTuple):
    """One command that may make a key."""

    key: str
    type: str
    script: str
    """The name of the Lua script that ran it, ``RQ`` for one of RQ's; "" for a command of a client."""


class KeyRecorder:
    """Records all writes while it is open. Use it as a context manager; ``writes`` has them afterwards."""

    def __init__(self, url: str) -> None:
        self.writes: set[Write] = set()
        self._url = url
        self._scripts = {load_script(name).sha: name for name in SCRIPTS}
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        with redis_py.Redis.from_url(self._url) as client:
            client.execute_command("ECHO", _END)
        self._thread.join(30)

    def _read(self) -> None:
        with redis_py.Redis.from_url(self._url) as client, client.monitor() as monitor:
            self._ready.set()
            script = ""
            while found := _LINE.match(monitor.connection.read_response(disable_decoding=True)):
                words = [word.decode("latin-1") for word in _WORD.findall(found[2])]
                command = words[0].lower()
                if words[1:] == [_END]:
                    return
                if command in ("eval", "evalsha"):  # EVAL: RQ's transaction, with ended.lua in it
                    script = self._scripts.get(words[1], "RQ") if command == "evalsha" else "ended"
                elif command in _TYPE_OF:
                    self.writes.add(Write(words[1], _TYPE_OF[command], script if found[1] == b"lua" else ""))
