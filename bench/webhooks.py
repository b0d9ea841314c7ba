"""Webhooks: deliveries a second to a 20 ms endpoint, everything included - signing, guard, log, the receiver and Redis
on the same cores - and the same with half of the traffic to a destination that never answers.

``python -m bench.webhooks [DELIVERIES]``
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from rqjobs import WebhookJob, enqueue_many
from rqjobs.connection import get_connection
from rqjobs.embedded import stop_server
from rqjobs.health import pause, resume
from rqjobs.settings import use_settings

PEERS = {"taskiq": 2400, "SAQ": 2220, "BullMQ": 1940, "Dramatiq": 1240, "Celery": 590, "RQ pool of 8": 264}
"""Deliveries a second, each at its best setting, on two idle cores of the machine that this was written on."""
DELAY = 0.02
WORKERS = 2
ROOT = Path(__file__).parents[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def cpu(*processes: psutil.Process) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(time.user + time.system for time in times)


def arrived(port: int) -> int:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\ncontent-length: 0\r\n\r\n")
        return int(connection.recv(1000).rpartition(b"\r\n")[2])


def jobs(port: int, count: int) -> list[WebhookJob]:
    payload = {"qr_code": "ABC123", "text": "x" * 200}
    url = f"http://127.0.0.1:{port}/hook"
    return [WebhookJob(webhook_id="wh_1", event="qr.scanned", url=url, payload=payload) for _ in range(count)]


def measure(name: str, ports: tuple[int, int | None], count: int, processes: Sequence[psutil.Process]) -> float:
    """Deliveries a second to the healthy receiver, ``count`` of them, and as many to the dead one if there is any."""
    port, dead_port = ports
    receiver, server, *workers = processes
    before = arrived(port)
    busy = cpu(*workers), cpu(server), cpu(receiver)
    healthy = jobs(port, count)
    mixed = (
        [job for pair in zip(healthy, jobs(dead_port, count), strict=True) for job in pair] if dead_port else healthy
    )
    pause("webhooks")  # enqueueing is not what is measured here
    time.sleep(1)
    enqueue_many(mixed)
    resume("webhooks")
    while (first := arrived(port) - before) == 0:
        time.sleep(0.001)
    started = time.perf_counter()
    while (done := arrived(port) - before) < count and time.perf_counter() - started < 120:
        time.sleep(0.01)
    rate = (done - first) / (time.perf_counter() - started)
    ended = cpu(*workers), cpu(server), cpu(receiver)
    used = [(after - start) / done * 1e6 for start, after in zip(busy, ended, strict=True)]
    print(
        f"{name:<28}{rate:>7.0f}/s   CPU us per delivery: workers {used[0]:.0f}, Redis {used[1]:.0f},"
        f" receiver {used[2]:.0f}; two idle cores would do {2e6 / sum(used):.0f}/s"
    )
    return rate


def main(count: int = 10_000) -> None:
    """Prints the figures and how they compare."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {
            "REDIS_URL": f"embedded:{folder}/redis",
            "RQJOBS_DATA": str(folder),
            "DATABASE_URL": f"sqlite:///{folder}/rqjobs.db",
            "WEBHOOK_ALLOW": "127.0.0.1",
            "WEBHOOK_SIGNING_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "WEBHOOK_TIMEOUT": "2s",
            "WEBHOOK_BREAKER_AFTER": "1s",
            "PYTHONPATH": str(ROOT),
        }
        use_settings(None)
        get_connection()
        port, dead_port = free_port(), free_port()
        command = [sys.executable, "-m", "bench.webhook_receiver", str(port), str(DELAY), str(dead_port)]
        started = [subprocess.Popen(command, cwd=ROOT)]
        log = (folder / "worker.log").open("w")
        command = [sys.executable, "-m", "rqjobs", "worker", "webhooks"]
        started += [subprocess.Popen(command, cwd=folder, stderr=log) for _ in range(WORKERS)]
        try:
            time.sleep(1)
            receiver, *workers = [psutil.Process(process.pid) for process in started]
            server = psutil.Process(int(get_connection().info("server")["process_id"]))
            processes = [receiver, server, *workers]
            enqueue_many(jobs(port, 500))
            deadline = time.monotonic() + 30
            while arrived(port) < 500:
                assert time.monotonic() < deadline, (folder / "worker.log").read_text()[-2000:]
                time.sleep(0.1)
            time.sleep(1)
            print(f"webhooks: {count:,} deliveries to a {DELAY * 1000:.0f} ms endpoint, {WORKERS} worker processes")
            # The dead destination has been dead for a while: its circuit breaker is open when the measuring begins.
            enqueue_many(jobs(dead_port, 100))
            time.sleep(5)
            alone = measure("all healthy", (port, None), count, processes)
            mixed = measure("half to a dead destination", (port, dead_port), count // 2, processes)
            best = max(PEERS, key=PEERS.__getitem__)
            print(f"  {alone / PEERS[best]:.1f} x {best} ({PEERS[best]}/s, goal 2 x)   ", end="")
            print(f"beside a dead destination {mixed / alone:.2f} x (goal 0.8 x)")
            print("  peers on two idle cores: " + ", ".join(f"{name} {rate}/s" for name, rate in PEERS.items()))
        finally:
            for process in reversed(started):
                process.terminate()
            for process in started:
                process.wait()
            log.close()
            stop_server(folder / "redis")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
