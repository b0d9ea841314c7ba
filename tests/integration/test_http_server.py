"""The server of the dashboard and of health ports, beside connections that are held open on purpose."""

from __future__ import annotations

import contextlib
import http.client
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import redis as redis_py

from rqjobs.errors import RQJobsError
from rqjobs.monitoring import http_server
from rqjobs.monitoring.health_server import serve_probes
from rqjobs.monitoring.http_server import LimitedServer
from tests.support.servers import free_port
from tests.support.workers import Workers, eventually

HALVES = (b"", b"GET /ready HTTP/1.1\r\nHost: localhost\r\nX-",
    b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nuser")  # fmt: skip


@contextlib.contextmanager
def half_open(port: int, number: int) -> Iterator[list[socket.socket]]:
    """So many connections of three kinds: silent, half of the headers, half of a body."""
    with contextlib.ExitStack() as stack:
        opened = []
        for index in range(number):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            connection.sendall(HALVES[index % len(HALVES)])
            opened.append(connection)
        yield opened


def get(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def hello(environ: dict, start_response: Callable) -> list[bytes]:
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]


@contextlib.contextmanager
def serving(app: Callable = hello, **options: int) -> Iterator[LimitedServer]:
    server = LimitedServer(app, "127.0.0.1", 0, **{"threads": 2, **options})
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.server_close()
    thread.join(60)
    assert not thread.is_alive()


@pytest.fixture
def many_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, before[1]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("number", [500, pytest.param(2000, marks=pytest.mark.slow)])
def test_connections_that_are_held_open_do_no_harm(
    workers: Workers, redis: redis_py.Redis, many_files: None, number: int
) -> None:
    port = free_port()
    dashboard = workers.command("dashboard", "--port", str(port), DASHBOARD_PASSWORD="correct horse")
    resource.prlimit(dashboard.pid, resource.RLIMIT_NOFILE, (256, 256))  # the default of macOS
    eventually(lambda: "dashboard: http" in workers.logs())
    with half_open(port, number):
        for _ in range(3):
            assert get(port, "/login") == 200
        dashboard.send_signal(signal.SIGTERM)
        assert dashboard.wait(60) == 0
    assert "Traceback" not in workers.logs()
    assert "Too many open files" not in workers.logs()


def test_the_health_port_answers_beside_connections_that_are_held_open(redis: redis_py.Redis) -> None:
    server = serve_probes(0)
    try:
        with half_open(server.server_port, 300):
            assert get(server.server_port, "/ready") == 200
            assert len(server.active_channels) <= 101
    finally:
        server.server_close()


def test_the_connection_that_waited_longest_makes_room(redis: redis_py.Redis) -> None:
    with serving(connections=20) as server, half_open(server.server_port, 20) as opened:
        eventually(lambda: len(server.active_channels) == 20)
        assert get(server.server_port, "/") == 200
        assert opened[0].recv(1) == b""
        # The others were left alone: the second one finishes its request.
        opened[1].sendall(b"Y: z\r\n\r\n")
        assert opened[1].recv(100).startswith(b"HTTP/1.1 200 OK")


def test_a_request_that_drips_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_REQUEST_SECONDS", 1.0)
    with serving() as server, socket.create_connection(("127.0.0.1", server.server_port), timeout=60) as dripping:
        begin = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < begin + 60:
                dripping.sendall(b"GET / HTTP/1.1\r\n"[:1])
                dripping.settimeout(0.2)
                with contextlib.suppress(TimeoutError):
                    if dripping.recv(1) == b"":
                        break
        assert time.monotonic() < begin + 30


def test_an_answer_that_is_not_fetched_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def large(environ: dict, start_response: Callable) -> list[bytes]:
        start_response("200 OK", [("Content-Length", str(30_000_000))])
        return [b"x" * 30_000_000]

    monkeypatch.setattr(http_server, "_ANSWER_SECONDS", 1.0)
    with serving(large, threads=1) as server, contextlib.ExitStack() as stack:
        for _ in range(2):  # the only thread is free for the second one while the first one does not read
            client = stack.enter_context(socket.create_connection(("127.0.0.1", server.server_port), timeout=60))
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(8) == b"HTTP/1.1"
        eventually(lambda: not server.active_channels)


def test_a_stop_completes_running_requests() -> None:
    started, go_on = threading.Event(), threading.Event()

    def slow(environ: dict, start_response: Callable) -> list[bytes]:
        started.set()
        go_on.wait(60)
        return hello(environ, start_response)

    server = LimitedServer(slow, "127.0.0.1", 0, threads=2)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    statuses: list[int] = []
    client = threading.Thread(target=lambda: statuses.append(get(server.server_port, "/")))
    client.start()
    assert started.wait(60)
    port = server.server_port
    server.ask_to_stop()

    def refused() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:  # it was accepted by the kernel as the server closed its port
            return False
        return False

    try:
        eventually(refused)
        assert thread.is_alive()
    finally:
        go_on.set()
        thread.join(60)
        client.join(60)
    assert statuses == [200]
    server.server_close()


@pytest.mark.parametrize(("sent", "status"), [(b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", b"431"),
    (b"POST / HTTP/1.1\r\nContent-Length: 9999999999\r\n\r\n", b"413"), (b"\x16\x03\x01\r\n\r\n", b"400")])  # fmt: skip
def test_requests_that_are_too_large_or_malformed_are_refused(sent: bytes, status: bytes) -> None:
    with serving() as server, socket.create_connection(("127.0.0.1", server.server_port), timeout=60) as client:
        client.sendall(sent)
        assert client.recv(100).split()[1] == status


def test_a_port_that_is_taken_is_named() -> None:
    with serving() as server, pytest.raises(RQJobsError, match="choose another with --port"):
        LimitedServer(hello, "127.0.0.1", server.server_port, threads=1)
