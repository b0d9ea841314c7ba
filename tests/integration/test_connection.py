"""Every scheme of REDIS_URL, and what is said when Redis does not answer."""

import os
import socket
import ssl
import subprocess
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from rqjobs.broker import connection
from rqjobs.broker.connection import connect, get_connection, redact
from rqjobs.broker.embedded import find_server
from rqjobs.errors import RedisUnavailable
from tests.support.servers import free_port
from tests.support.workers import eventually


@contextmanager
def server(*args, conf=""):
    """A valkey-server on a port of its own."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        path = Path(folder) / "server.conf"
        path.write_text(f"port {port}\nbind 127.0.0.1\nsave ''\ndir {folder}\n{conf}\n")
        process = subprocess.Popen([find_server(), str(path), *args], stdout=subprocess.DEVNULL)
        try:
            yield port
        finally:
            process.terminate()
            process.wait(60)


@contextmanager
def tls_in_front_of(path, certificate):
    """Redis over TLS: the bundled server has none, so a terminator stands before its socket."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, target):
                end.close()

    def serve():
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            try:
                outer = context.wrap_socket(raw, server_side=True)
            except OSError:
                raw.close()
                continue
            inner = socket.socket(socket.AF_UNIX)
            inner.connect(path)
            for pair in ((outer, inner), (inner, outer)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def test_rediss_verifies_the_certificate(redis, redis_url, tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with tls_in_front_of(redis_url.removeprefix("unix://"), authority.issue_cert("localhost")) as port:
        with pytest.raises(RedisUnavailable, match=r"(?i)certificate"):
            connect(f"rediss://localhost:{port}/0")
        client = connect(f"rediss://localhost:{port}/0?ssl_ca_certs={tmp_path}/ca.pem")
        assert client.set("over", "tls")
        client.close()
    assert redis.get("over") == b"tls"


def test_redis_with_a_password_over_tcp():
    with server(conf="requirepass hunter2") as port:
        assert eventually(lambda: _try(f"redis://:hunter2@127.0.0.1:{port}/3"))
        with pytest.raises(RedisUnavailable) as caught:
            connect(f"redis://:hunter3@127.0.0.1:{port}/0")
        assert "hunter" not in str(caught.value)


def test_sentinel_names_the_master():
    with server() as master:
        monitor = f"sentinel monitor mymaster 127.0.0.1 {master} 1"
        with server("--sentinel", conf=monitor) as sentinel:
            url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel}/mymaster/2"
            client = eventually(lambda: _try(url))
            client.set("a", "b")
            direct = connect(f"redis://127.0.0.1:{master}/2")
            assert direct.get("a") == b"b"
            direct.close()
            client.close()


def _try(url):
    try:
        return connect(url)
    except RedisUnavailable:
        return None


@pytest.mark.parametrize(
    "url",
    ["redis://:s3cret@127.0.0.1:1/0", "unix:///no/such/socket", "redis+sentinel://127.0.0.1:1/mymaster",
     "redis+sentinel://127.0.0.1:1", "rediss://user:s3cret@127.0.0.1:1", "redis://127.0.0.1:notaport",
     "redis://:s3cret/pw@127.0.0.1:1/0", "redis://:pw#s3cret@127.0.0.1:1"],
)  # fmt: skip
def test_a_redis_that_does_not_answer_is_an_error_without_fallback(url):
    with pytest.raises(RedisUnavailable) as caught:
        connect(url)
    assert "s3cret" not in str(caught.value)
    assert "REDIS_URL" in str(caught.value)


def test_an_option_that_redis_py_does_not_know_is_named(redis, redis_url):
    with pytest.raises(RedisUnavailable, match="foo"):
        connect(f"{redis_url}?foo=bar")


def test_redact_removes_password_and_query():
    assert redact("redis://user:pw@host:6379/0?password=pw2") == "redis://host:6379/0"
    assert redact("unix:///run/redis.sock?password=pw") == "unix:///run/redis.sock"
    assert redact("unix://user:pw@/run/redis.sock") == "unix:///run/redis.sock"
    assert redact("embedded:folder") == "embedded:folder"
    assert redact("redis://:Secret/pw@host:1/0") == "redis://..."


def test_a_forked_process_gets_a_connection_of_its_own(redis):
    mine = get_connection()
    assert get_connection() is mine
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:  # pragma: no cover
        os.write(write, b"new" if get_connection() is not mine and get_connection().ping() else b"old")
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 10) == b"new"
    assert mine.ping()
    os.close(read)
    os.close(write)
    assert connection._shared[0] == os.getpid()
