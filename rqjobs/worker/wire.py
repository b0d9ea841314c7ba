"""One bare connection to Redis for the engine's loop: scripts in, answers and pushed messages out, no call more."""

from __future__ import annotations

import contextlib
import select
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any

import hiredis
import redis

from rqjobs.scripts import source

Word = Any  # str, bytes, int or float: what hiredis packs
SILENCE = 15.0
"""Seconds within which Redis answers, or the connection is given up."""

SCRIPTS = ("reserve", "finish", "schedule", "renew")


class Refused(Exception):
    """Redis answered with an error: it is loading, full, read-only, or has forgotten our scripts."""


class Bell:
    """Wakes the engine's loop from any thread, or from a signal's handler."""

    def __init__(self) -> None:
        self._inside, self._outside = socket.socketpair()
        self._inside.setblocking(False)
        self._outside.setblocking(False)

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._inside.fileno()

    def ring(self) -> None:
        """Ends a sleep, or the next one."""
        with contextlib.suppress(OSError):  # it rings already, or is closed
            self._outside.send(b"\0")

    def quiet(self) -> None:
        """Takes note of the ringing."""
        with contextlib.suppress(BlockingIOError):
            self._inside.recv(4096)

    def wait(self, seconds: float) -> None:
        """Waits for a ring without any connection, at most ``seconds``."""
        select.select([self._inside], [], [], seconds)
        self.quiet()

    def close(self) -> None:
        """Closes both ends."""
        self._inside.close()
        self._outside.close()


class Wire:
    """A connection that redis-py opened (address, TLS, login, Sentinel are its business) and that we read ourselves.

    redis-py's own reading costs more than the rest of the engine's loop, and hides pushed messages from it.
    Not thread-safe.
    """

    def __init__(self, client: redis.Redis, prefixes: Sequence[str], channel: str, bell: Bell) -> None:
        """Connects, loads the scripts, and asks to be told of changes to keys under ``prefixes``.

        Raises:
            redis.exceptions.RedisError, OSError: Redis does not answer.
        """
        self._client = client  # it closes its connections when nobody holds it
        self._pool = client.connection_pool
        self._connection: Any = self._pool.get_connection()
        self._connection.connect()
        connected: Any = self._connection._sock  # noqa: SLF001  # redis-py has no public name for it
        self._socket: Any = connected
        self._socket.settimeout(SILENCE)
        self._reader = hiredis.Reader()
        self._answers: deque[Any] = deque()
        self._pushed: list[list[Any]] = []
        self._bell = bell
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._poll.register(self._bell, select.POLLIN)
        answers = self.call([("SCRIPT", "LOAD", source(name)) for name in SCRIPTS])
        self._sha = dict(zip(SCRIPTS, answers, strict=True))
        self.call([("HELLO", "3")])
        self.send([("SUBSCRIBE", channel)])  # its answer is a pushed message
        self.pushes = self._track(prefixes)

    def _track(self, prefixes: Sequence[str]) -> bool:
        words = ["CLIENT", "TRACKING", "ON", "BCAST", "NOLOOP"]
        for prefix in prefixes:
            words += ["PREFIX", prefix]
        try:
            self.call([words])
        except Refused:  # a proxy or an ACL in between: the engine polls instead
            return False
        return True

    def call(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        """Sends ``commands`` at once and returns their answers in order.

        Raises:
            Refused: an answer is an error.
            OSError: the connection broke, or Redis was silent for 15 s.
        """
        self.send(commands)
        return self.answers(len(commands))

    def send(self, commands: Sequence[Sequence[Word]]) -> None:
        """Sends ``commands`` at once; :meth:`answers` is for later."""
        self._socket.sendall(b"".join([hiredis.pack_command(tuple(words)) for words in commands]))

    def answers(self, count: int) -> list[Any]:
        """The next ``count`` answers, waited for; raises as :meth:`call`."""
        while not self.ready(count):
            self._feed()
        found = [self._answers.popleft() for _ in range(count)]
        for answer in found:
            if isinstance(answer, Exception):
                raise Refused(str(answer))
        return found

    def ready(self, count: int) -> bool:
        """Whether so many answers have come."""
        return len(self._answers) >= count

    def script(self, name: str, words: Sequence[Word]) -> Sequence[Word]:
        """The command that runs ``rqjobs/lua/<name>.lua`` with ``words`` as its arguments."""
        return ("EVALSHA", self._sha[name], 0, *words)

    def _feed(self) -> None:
        data = self._socket.recv(262144)
        if not data:
            raise ConnectionResetError("Redis closed the connection")
        self._reader.feed(data)
        while (answer := self._reader.gets()) is not False:
            (self._pushed if isinstance(answer, hiredis.PushNotification) else self._answers).append(answer)

    def sleep(self, seconds: float) -> None:
        """Waits for Redis to say something or for a ring of the bell, at most ``seconds``.

        Raises:
            OSError: the connection broke.
        """
        if self._pushed:
            return
        for descriptor, _event in self._poll.poll(max(0.0, seconds) * 1000):
            if descriptor == self._bell.fileno():
                self._bell.quiet()
            else:
                self._feed()

    def pushed(self) -> list[list[Any]]:
        """The messages pushed since the last call."""
        pushed, self._pushed = self._pushed, []
        return pushed

    def close(self) -> None:
        """Closes the connection."""
        self._connection.disconnect()
        self._pool.release(self._connection)
        self._client.close()
