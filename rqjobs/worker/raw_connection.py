"""The worker loop's two raw connections to Redis: one for scripts and their responses, one for pushed messages."""

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
from rqjobs.worker.protocol import Word

RESPONSE_TIMEOUT = 15.0
"""Seconds without a response after which a connection is closed: longer than any of our scripts blocks Redis."""

PUSH_CHECK_INTERVAL = 0.005
"""Seconds between two checks for pushed messages in a loop that does not sleep: a check costs a system call."""

LIVENESS_INTERVAL = 5.0
"""Seconds between two checks of the connection for pushed messages, which has no other traffic."""

SCRIPTS = ("reserve", "finish", "schedule", "renew")


class Refused(Exception):
    """Redis has responded with an error: it is loading, full, read-only, or has lost our scripts."""


class WakeUp:
    """Ends the sleep of the worker loop, from any thread or from a signal handler."""

    def __init__(self) -> None:
        self._inside, self._outside = socket.socketpair()
        self._inside.setblocking(False)
        self._outside.setblocking(False)

    def fileno(self) -> int:
        """The file descriptor to poll."""
        return self._inside.fileno()

    def set(self) -> None:
        """Ends the current sleep, or the next one."""
        with contextlib.suppress(OSError):  # it is set already (the buffer is full), or closed
            self._outside.send(b"\0")

    def clear(self) -> None:
        """Resets it."""
        with contextlib.suppress(BlockingIOError):
            self._inside.recv(4096)

    def wait(self, seconds: float) -> None:
        """Waits until it is set, at most ``seconds``; for a loop that has no connection."""
        select.select([self._inside], [], [], seconds)
        self.clear()

    def close(self) -> None:
        """Closes both ends."""
        self._inside.close()
        self._outside.close()


class _Socket:
    """One connection, opened by redis-py (address, TLS, login, Sentinel), with its own parser for responses."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._connection: Any = pool.get_connection()
        self._connection.connect()
        self.socket: Any = self._connection._sock  # noqa: SLF001  # redis-py has no public name for it
        self.socket.settimeout(RESPONSE_TIMEOUT)
        self._pending: Callable[[], int] | None = getattr(self.socket, "pending", None)  # TLS buffers data
        self._reader = hiredis.Reader()
        self.responses: deque[Any] = deque()
        self.pushed: list[list[Any]] = []

    def send(self, commands: Sequence[Sequence[Word]]) -> None:
        """Sends ``commands`` in one write."""
        self.socket.sendall(b"".join([hiredis.pack_command(tuple(arguments)) for arguments in commands]))

    def feed(self) -> None:
        """Waits for data and parses it.

        Raises:
            OSError: the connection broke, or no data came for 15 s.
        """
        while True:
            data = self.socket.recv(262144)
            if not data:
                raise ConnectionResetError("Redis closed the connection")
            self._reader.feed(data)
            if self._pending is None or not self._pending():
                break
        while (response := self._reader.gets()) is not False:
            (self.pushed if isinstance(response, hiredis.PushNotification) else self.responses).append(response)

    def read(self, count: int) -> list[Any]:
        """Waits for the next ``count`` responses and returns them, errors included."""
        while len(self.responses) < count:
            self.feed()
        return [self.responses.popleft() for _ in range(count)]

    def call(self, *arguments: Word) -> Any:
        """Sends one command and returns its response.

        Raises:
            Refused: the response is an error.
        """
        self.send([arguments])
        return _checked(self.read(1))[0]

    def close(self) -> None:
        """Closes the connection."""
        self._connection.disconnect()
        self._pool.release(self._connection)


class RawConnection:
    """The connection for scripts and their responses, and a second one for pushed messages. Not thread-safe.

    Redis closes a subscribed connection when 32 MB wait for it (``client-output-buffer-limit pubsub``), and a response
    with a few hundred large jobs is larger. So the connection for jobs has no subscription: changes to watched keys are
    sent to the second one (``CLIENT TRACKING ... REDIRECT``). When one breaks, both are closed. redis-py's parser is
    not used: it costs more CPU time than the rest of the loop, and does not return pushed messages.
    """

    def __init__(self, client: redis.Redis, prefixes: Sequence[str], channel: str, wake_up: WakeUp) -> None:
        """Connects, loads the scripts, and subscribes to ``channel`` and to changes of keys under ``prefixes``.

        Raises:
            redis.exceptions.RedisError, OSError: Redis does not answer.
        """
        self._client = client  # kept, because it closes its connections when it is freed
        self._jobs = _Socket(client.connection_pool)
        self._push = _Socket(client.connection_pool)
        self._wake_up = wake_up
        self._poll = select.poll()
        for source_of in (self._jobs.socket, self._push.socket, self._wake_up):
            self._poll.register(source_of, select.POLLIN)
        self._push_poll = select.poll()  # select.select() takes no descriptor above 1023
        self._push_poll.register(self._push.socket, select.POLLIN)
        responses = self.call([("SCRIPT", "LOAD", source(name)) for name in SCRIPTS])
        self._sha = dict(zip(SCRIPTS, responses, strict=True))
        self._push.call("HELLO", "3")
        self._push.send([("SUBSCRIBE", channel)])  # its response is a pushed message
        self.pushes = self._track(prefixes)
        self.replicas = True
        """Whether Redis has replicas: in a failover one of them becomes the primary, without the latest writes."""
        self._probing = False
        self._checked_at = 0.0
        self._probed_at = -LIVENESS_INTERVAL  # at once

    def _track(self, prefixes: Sequence[str]) -> bool:
        try:
            arguments = ["CLIENT", "TRACKING", "ON", "REDIRECT", self._push.call("CLIENT", "ID"), "BCAST", "NOLOOP"]
            for prefix in prefixes:
                arguments += ["PREFIX", prefix]
            self.call([arguments])
        except Refused:  # a proxy or an ACL does not allow it, so the loop polls
            return False
        return True

    def call(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        """Sends ``commands`` in one write and returns their responses in order.

        Raises:
            Refused: a response is an error.
            OSError: the connection broke, or no response came for 15 s.
        """
        self.send(commands)
        return self.responses(len(commands))

    def call_each(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        """Like :meth:`call`, with None as the response of a command on a key of the wrong type."""
        self.send(commands)
        found = self._jobs.read(len(commands))
        return _checked([None if _is_wrong_type(response) else response for response in found])

    def send(self, commands: Sequence[Sequence[Word]]) -> None:
        """Sends ``commands`` in one write, without waiting for their responses (see :meth:`responses`)."""
        self._jobs.send(commands)

    def responses(self, count: int) -> list[Any]:
        """Waits for the next ``count`` responses and returns them; raises the errors of :meth:`call`."""
        return _checked(self._jobs.read(count))

    def ready(self, count: int) -> bool:
        """Returns whether ``count`` responses have arrived."""
        return len(self._jobs.responses) >= count

    def script(self, name: str, arguments: Sequence[Word]) -> Sequence[Word]:
        """Returns the command that runs ``rqjobs/broker/lua/<name>.lua`` with ``arguments``."""
        return ("EVALSHA", self._sha[name], 0, *arguments)

    def sleep(self, seconds: float) -> None:
        """Waits for data from Redis or for the wake-up, at most ``seconds``.

        Raises:
            OSError: the connection broke.
        """
        if self._push.pushed:
            return
        for descriptor, _event in self._poll.poll(max(0.0, seconds) * 1000):
            if descriptor == self._wake_up.fileno():
                self._wake_up.clear()
            else:
                (self._jobs if descriptor == self._jobs.socket.fileno() else self._push).feed()

    def pushed_messages(self, now: float) -> list[list[Any]]:
        """Returns the messages pushed since the last call.

        A busy loop never sleeps, so this method checks the connection itself, at most every 5 ms. Every 5 s it queries
        the number of replicas, which also shows that the connection works.

        Raises:
            OSError: the connection broke, or no response came on it for 15 s.
        """
        if now - self._checked_at >= PUSH_CHECK_INTERVAL:
            self._checked_at = now
            if self._push_poll.poll(0):
                self._push.feed()
            while self._push.responses:
                self._probed_at, count = now, self._push.responses.popleft()
                self.replicas = not isinstance(count, int) or count > 0  # after an error, assume there are replicas
                self._probing = False
        if now - self._probed_at >= (RESPONSE_TIMEOUT if self._probing else LIVENESS_INTERVAL):
            if self._probing:
                raise TimeoutError(f"no response from Redis for {RESPONSE_TIMEOUT:.0f} s")
            self._push.send([("WAIT", 0, 0)])  # on a connection that wrote nothing it returns at once
            self._probed_at, self._probing = now, True
        pushed, self._push.pushed = self._push.pushed, []
        return pushed

    def close(self) -> None:
        """Closes both connections."""
        self._jobs.close()
        self._push.close()
        self._client.close()


def _checked(responses: list[Any]) -> list[Any]:
    for response in responses:
        if isinstance(response, Exception):
            raise Refused(str(response))
    return responses


def _is_wrong_type(response: Any) -> bool:
    return isinstance(response, Exception) and str(response).startswith("WRONGTYPE")
