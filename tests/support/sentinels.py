"""A primary, replicas and three Sentinels: Debian's own programs on ports of their own."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis as redis_py

from tests.support.servers import free_port
from tests.support.workers import eventually

NAME = "mymaster"


class Sentinels:
    """What one test started."""

    def __init__(self, folder: Path, conf: str, replicas: int) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self.ports = [free_port() for _ in range(1 + replicas)]
        self.sentinels = [free_port() for _ in range(3)]
        for port in self.ports:
            self._start("redis-server", port, f"save ''\nappendonly yes\nrepl-diskless-sync-delay 0\n{conf}\n"
                        + (f"replicaof 127.0.0.1 {self.ports[0]}\n" if port != self.ports[0] else ""))  # fmt: skip
        eventually(self.settled)  # connected alone may mean that their copy is still to come
        for port in self.sentinels:
            self._start("redis-sentinel", port, f"sentinel monitor {NAME} 127.0.0.1 {self.ports[0]} 2\n"
                        f"sentinel down-after-milliseconds {NAME} 5000\n"
                        f"sentinel failover-timeout {NAME} 20000\n")  # fmt: skip
        eventually(self._see_each_other)

    @property
    def url(self) -> str:
        """As REDIS_URL."""
        return f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in self.sentinels)}/{NAME}/0"

    def _start(self, program: str, port: int, conf: str) -> None:
        folder = self._folder / str(port)
        folder.mkdir()
        path = folder / "server.conf"
        path.write_text(f"port {port}\nbind 127.0.0.1\ndir {folder}\nlogfile {folder}/log\nprotected-mode no\n{conf}")
        self._processes.append(subprocess.Popen([program, str(path)], stdout=subprocess.DEVNULL))

    def client(self, index: int) -> redis_py.Redis:
        """A client of one of the Redis, by its place in ``ports``."""
        return redis_py.Redis(port=self.ports[index], socket_timeout=10)

    def info(self, index: int) -> dict[str, object]:
        """What this Redis says of its replication; empty while it does not answer."""
        with suppress(redis_py.exceptions.RedisError), self.client(index) as client:
            return dict(client.info("replication"))  # type: ignore[arg-type]
        return {}

    def _ask(self, port: int) -> dict[str, object]:
        with suppress(redis_py.exceptions.RedisError), redis_py.Redis(port=port, socket_timeout=5) as client:
            return dict(client.sentinel_master(NAME))
        return {}

    def _see_each_other(self) -> bool:
        found = [self._ask(port) for port in self.sentinels]
        return all(
            one.get("num-other-sentinels") == 2 and one.get("num-slaves") == len(self.ports) - 1 for one in found
        )

    def primary(self) -> int:
        """The port that the Sentinels name."""
        with redis_py.Redis(port=self.sentinels[0], socket_timeout=5) as client:
            return int(client.sentinel_get_master_addr_by_name(NAME)[1])

    def failover(self, *, pause: bool = False) -> int:
        """``SENTINEL FAILOVER``, to the switch: the new primary's port. With ``pause`` as docs/deployment.md has it."""
        before = self.primary()
        if pause:
            with redis_py.Redis(port=before) as client:
                client.client_pause(10_000, all=False)
        with redis_py.Redis(port=self.sentinels[0], socket_timeout=5) as client:
            eventually(lambda: _accepted(client), timeout=60)
        eventually(lambda: self.primary() != before)
        return self.primary()

    def settled(self) -> bool:
        """Whether all others follow the new primary."""
        found = [self.info(index) for index in range(len(self.ports))]
        links = [one.get("master_link_status") == "up" for one in found if one.get("role") == "slave"]
        return len(links) == len(self.ports) - 1 and all(links)

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(30)


def _accepted(client: redis_py.Redis) -> bool:
    try:
        return bool(client.execute_command("SENTINEL", "FAILOVER", NAME))
    except redis_py.exceptions.ResponseError:  # -NOGOODSLAVE, or the last failover is not over
        time.sleep(0.5)
        return False


@contextmanager
def sentinels(conf: str = "", replicas: int = 2) -> Iterator[Sentinels]:
    """A primary, replicas and three Sentinels; ``conf``: lines of every Redis' configuration."""
    if shutil.which("redis-sentinel") is None:
        pytest.skip("Debian's redis-sentinel is not installed: apt-get install redis-server redis-sentinel")
    folder = Path(tempfile.mkdtemp(prefix="rqjobs-sentinel-"))
    started = Sentinels.__new__(Sentinels)
    try:
        started.__init__(folder, conf, replicas)  # type: ignore[misc]
        yield started
    finally:
        started.stop()
        shutil.rmtree(folder, ignore_errors=True)
