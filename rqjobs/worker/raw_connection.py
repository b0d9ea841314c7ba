"""The engine's two bare connections to Redis: one for scripts and their answers, one for pushed messages."""

from __future__ import annotations

import contextlib
import select
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import hiredis
import redis

from rqjobs.broker.scripts import source

Word = Any  # str, bytes, int or float: what hiredis packs
SILENCE = 15.0
"""Seconds within which Redis answers, or the connection is given up."""

GLANCE = 0.005
"""Seconds from one look for pushed messages to the next, in a loop that does not sleep."""

CHECK = 5.0
"""Seconds from one sign of life of the connection for pushed messages to the next."""

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


class _Line:
    """One connection that redis-py opened (address, TLS, login, Sentinel are its business); we read it ourselves."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._connection: Any = pool.get_connection()
        self._connection.connect()
        self.socket: Any = self._connection._sock  # noqa: SLF001  # redis-py has no public name for it
        self.socket.settimeout(SILENCE)
        self._pending: Callable[[], int] | None = getattr(self.socket, "pending", None)  # TLS reads ahead
        self._reader = hiredis.Reader()
        self.answers: deque[Any] = deque()
        self.pushed: list[list[Any]] = []

    def send(self, commands: Sequence[Sequence[Word]]) -> None:
        """Sends ``commands`` at once."""
        self.socket.sendall(b"".join([hiredis.pack_command(tuple(words)) for words in commands]))

    def feed(self) -> None:
        """Reads what has come, waiting for it.

        Raises:
            OSError: the connection broke, or nothing came for 15 s.
        """
        while True:
            data = self.socket.recv(262144)
            if not data:
                raise ConnectionResetError("Redis closed the connection")
            self._reader.feed(data)
            if self._pending is None or not self._pending():
                break
        while (answer := self._reader.gets()) is not False:
            (self.pushed if isinstance(answer, hiredis.PushNotification) else self.answers).append(answer)

    def take(self, count: int) -> list[Any]:
        """The next ``count`` answers, waited for, errors among them."""
        while len(self.answers) < count:
            self.feed()
        return [self.answers.popleft() for _ in range(count)]

    def call(self, *words: Word) -> Any:
        """The answer to one command.

        Raises:
            Refused: it is an error.
        """
        self.send([words])
        return _checked(self.take(1))[0]

    def close(self) -> None:
        """Closes the connection."""
        self._connection.disconnect()
        self._pool.release(self._connection)


class Wire:
    """The connection for scripts and their answers, and a second one for what Redis pushes.

    Redis closes a subscribed connection once 32 MB wait for it (``client-output-buffer-limit pubsub``): an answer with
    a few hundred large jobs is more. So the connection that carries jobs has neither subscriptions nor pushed messages:
    its changes to watched keys are announced to the second one (``CLIENT TRACKING ... REDIRECT``). When either breaks,
    both are given up. redis-py's own reading costs more than the rest of the engine's loop, and hides pushed messages
    from it. Not thread-safe.
    """

    def __init__(self, client: redis.Redis, prefixes: Sequence[str], channel: str, bell: Bell) -> None:
        """Connects, loads the scripts, and has changes to keys under ``prefixes`` announced.

        Raises:
            redis.exceptions.RedisError, OSError: Redis does not answer.
        """
        self._client = client  # it closes its connections when nobody holds it
        self._jobs = _Line(client.connection_pool)
        self._ears = _Line(client.connection_pool)
        self._bell = bell
        self._poll = select.poll()
        for source_of in (self._jobs.socket, self._ears.socket, self._bell):
            self._poll.register(source_of, select.POLLIN)
        self._glance = select.poll()  # select.select() takes no descriptor above 1023
        self._glance.register(self._ears.socket, select.POLLIN)
        answers = self.call([("SCRIPT", "LOAD", source(name)) for name in SCRIPTS])
        self._sha = dict(zip(SCRIPTS, answers, strict=True))
        self._ears.call("HELLO", "3")
        self._ears.send([("SUBSCRIBE", channel)])  # its answer is a pushed message
        self.pushes = self._track(prefixes)
        self.replicas = True
        """Whether Redis has replicas, one of which may become the primary without what was written last."""
        self._waiting = False
        self._listened = 0.0
        self._asked = -CHECK  # at once

    def _track(self, prefixes: Sequence[str]) -> bool:
        try:
            words = ["CLIENT", "TRACKING", "ON", "REDIRECT", self._ears.call("CLIENT", "ID"), "BCAST", "NOLOOP"]
            for prefix in prefixes:
                words += ["PREFIX", prefix]
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

    def call_each(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        """As :meth:`call`, with None for a command on a key of another type."""
        self.send(commands)
        found = self._jobs.take(len(commands))
        return _checked([None if _is_wrong_type(answer) else answer for answer in found])

    def send(self, commands: Sequence[Sequence[Word]]) -> None:
        """Sends ``commands`` at once; :meth:`answers` is for later."""
        self._jobs.send(commands)

    def answers(self, count: int) -> list[Any]:
        """The next ``count`` answers, waited for; raises as :meth:`call`."""
        return _checked(self._jobs.take(count))

    def ready(self, count: int) -> bool:
        """Whether so many answers have come."""
        return len(self._jobs.answers) >= count

    def script(self, name: str, words: Sequence[Word]) -> Sequence[Word]:
        """The command that runs ``rqjobs/broker/lua/<name>.lua`` with ``words`` as its arguments."""
        return ("EVALSHA", self._sha[name], 0, *words)

    def sleep(self, seconds: float) -> None:
        """Waits for Redis to say something or for a ring of the bell, at most ``seconds``.

        Raises:
            OSError: the connection broke.
        """
        if self._ears.pushed:
            return
        for descriptor, _event in self._poll.poll(max(0.0, seconds) * 1000):
            if descriptor == self._bell.fileno():
                self._bell.quiet()
            else:
                (self._jobs if descriptor == self._jobs.socket.fileno() else self._ears).feed()

    def listen(self, now: float) -> list[list[Any]]:
        """The messages pushed since the last call.

        A loop that always has answers to read never sleeps, so this looks for itself, every 5 ms at most; and asks
        every 5 s for the number of replicas, which also shows that this connection is alive.

        Raises:
            OSError: the connection broke, or Redis was silent on it for 15 s.
        """
        if now - self._listened >= GLANCE:
            self._listened = now
            if self._glance.poll(0):
                self._ears.feed()
            while self._ears.answers:
                self._asked, count = now, self._ears.answers.popleft()
                self.replicas = not isinstance(count, int) or count > 0  # an error leaves it open
                self._waiting = False
        if now - self._asked >= (SILENCE if self._waiting else CHECK):
            if self._waiting:
                raise TimeoutError(f"Redis was silent for {SILENCE:.0f} s")
            self._ears.send([("WAIT", 0, 0)])  # of a connection that has written nothing it answers at once
            self._asked, self._waiting = now, True
        pushed, self._ears.pushed = self._ears.pushed, []
        return pushed

    def close(self) -> None:
        """Closes both connections."""
        self._jobs.close()
        self._ears.close()
        self._client.close()


def _checked(answers: list[Any]) -> list[Any]:
    for answer in answers:
        if isinstance(answer, Exception):
            raise Refused(str(answer))
    return answers


def _is_wrong_type(answer: Any) -> bool:
    return isinstance(answer, Exception) and str(answer).startswith("WRONGTYPE")
