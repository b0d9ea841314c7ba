"""Webhooks: deliveries a second to a 20 ms endpoint, everything included - signing, guard, log, the receiver and Redis
on the same cores - beside other job systems that do the bare POST; and what a destination that never answers costs.

``python -m bench.webhooks [--runs N] [--seconds S] [--only rqjobs BullMQ ...] [--work speed latency]``
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import psutil

from bench.engine import cpu
from bench.systems import ROOT, Stage, System, installed, middle, show, stage
from rqjobs import WebhookJob, enqueue_many
from rqjobs.config.settings import use_settings
from rqjobs.monitoring.queue_health import pause, resume

DELAY = 0.02
CORES = 2
SLOTS = {"Celery": 50, "Huey": 100}
"""Jobs at once in each of its two processes, where a system is faster with fewer than 200."""
POOL = 8
"""Processes of a system that runs one job at a time."""
GUESS = {"rqjobs": 8_000, "BullMQ": 8_000, "BullMQ by fetch": 4_000, "Celery": 1_500, "RQ SimpleWorker": 300}
"""Deliveries a second, for the number of jobs that keep a system busy long enough; 3,000 for others."""
STEADY = 200
"""Deliveries a second to each of two destinations, for the latency of one of them."""
ENVIRONMENT = {
    "WEBHOOK_ALLOW": "127.0.0.1",
    "WEBHOOK_SIGNING_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "WEBHOOK_TIMEOUT": "2s",
    "WEBHOOK_BREAKER_AFTER": "1s",
}


@dataclass(frozen=True)
class Receiver:
    """bench/webhook_receiver.py at work."""

    process: psutil.Process
    port: int
    dead_port: int

    def url(self, path: str = "/hook", *, dead: bool = False) -> str:
        """An address that answers after DELAY, or one that accepts and never answers."""
        return f"http://127.0.0.1:{self.dead_port if dead else self.port}{path}"

    def get(self, path: str) -> str:
        """What it says of what came."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection, connection.makefile("rb") as answer:
            connection.sendall(f"GET {path} HTTP/1.1\r\ncontent-length: 0\r\n\r\n".encode())
            return answer.read().partition(b"\r\n\r\n")[2].decode()

    def arrived(self) -> int:
        """How many deliveries have come so far."""
        return int(self.get("/count"))

    def until(self, count: int, limit: float = 60.0) -> float:
        """When so many had come, ``time.perf_counter()``."""
        end = time.perf_counter() + limit
        while (come := self.arrived()) < count:
            if time.perf_counter() > end:
                raise RuntimeError(f"{come} of {count} deliveries have come within {limit:g} s")
            time.sleep(0.005)
        return time.perf_counter()

    def times(self) -> dict[str, float]:
        """When the latest delivery to each path came, Unix time."""
        words = (line.split() for line in self.get("/times").splitlines())
        return {path: float(at) for path, at in words}


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver, for as long as the block runs."""
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as server:
            ports.append(int(server.getsockname()[1]))
    command = [sys.executable, "-m", "bench.webhook_receiver", str(ports[0]), str(DELAY), str(ports[1])]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        time.sleep(1)
        yield Receiver(psutil.Process(process.pid), *ports)
    finally:
        process.terminate()
        process.wait()


class Speed(NamedTuple):
    """Deliveries a second, and CPU microseconds a delivery."""

    rate: float
    worker: float
    redis: float
    receiver: float


def speed(on: Stage, receiver: Receiver, processes: Sequence[psutil.Process], count: int, start: int) -> Speed:
    """Watches ``count`` deliveries after ``start`` others, without the first fifth and the last twentieth of them."""

    def at(part: float) -> tuple[float, int, float, float, float]:
        moment = receiver.until(start + int(part * count))
        own = sum(cpu(process) for process in processes)
        return moment, receiver.arrived(), own, on.redis_cpu(), cpu(receiver.process)

    first, last = at(0.2), at(0.95)
    took, done, *used = (after - before for before, after in zip(first, last, strict=True))
    return Speed(done / took, *(1e6 * seconds / done for seconds in used))


def peer(on: Stage, receiver: Receiver, system: System, kind: str, seconds: float) -> Speed:
    """One of the others: its jobs do the bare POST. They wait in Redis before its workers start."""
    on.clear()
    count, start = int(GUESS.get(system.name, 3_000) * seconds), receiver.arrived()
    on.produce(system, "fill", kind, str(count))
    slots, processes = SLOTS.get(system.name, 200), CORES if system.slots else POOL
    with on.workers(system, kind, slots, processes) as started:
        return speed(on, receiver, started, count, start)


def jobs(urls: Sequence[str]) -> list[WebhookJob]:
    """Deliveries with the payload of the others' jobs."""
    payload = {"qrCode": "ABC123", "n": 1}
    return [WebhookJob(webhook_id="webhook_123", event="qr.scanned", url=url, payload=payload) for url in urls]


@contextmanager
def our_workers(on: Stage) -> Iterator[list[psutil.Process]]:
    """Ours, on an empty Redis, warm."""
    on.clear()
    system = replace(installed()[0], worker=("BIN/rqjobs", "worker", "webhooks"))
    with on.workers(system, "webhooks", 0, CORES) as processes:
        time.sleep(3)
        yield processes


def ours(on: Stage, receiver: Receiver, seconds: float, *, dead: bool) -> Speed:
    """Deliveries of ours; with as many to a dead destination in between, whose circuit breaker is open already."""
    with our_workers(on) as processes:
        enqueue_many(jobs([receiver.url()] * 1000 + [receiver.url(dead=True)] * 100 * dead))
        time.sleep(5 if dead else 1)
        count, start = int(GUESS["rqjobs"] * seconds), receiver.arrived()
        pause("webhooks")
        time.sleep(0.5)
        enqueue_many(jobs([receiver.url(), receiver.url(dead=True)] * count if dead else [receiver.url()] * count))
        resume("webhooks")
        return speed(on, receiver, processes, count, start)


def latencies(receiver: Receiver, seconds: float, others: Callable[[], list[WebhookJob]]) -> list[float]:
    """Milliseconds from enqueue to arrival, while ``others`` are enqueued as well, one by one."""
    sent: dict[str, float] = {}
    begun = time.time()
    for number in range(int(STEADY * seconds)):
        time.sleep(max(0.0, begun + number / STEADY - time.time()))
        path = f"/{begun}/{number}"
        batch = jobs([receiver.url(path)]) + others()
        sent[path] = time.time()
        enqueue_many(batch)
    time.sleep(1)
    came = receiver.times()
    return sorted(1000 * (came.get(path, float("inf")) - at) for path, at in sent.items())


def p99(values: Sequence[float]) -> float:
    """The 99th percentile."""
    return values[int(len(values) * 0.99)]


MIXED = "rqjobs, and half to a dead one"


def measure(on: Stage, receiver: Receiver, runs: int, seconds: float, only: Collection[str]) -> dict[str, list[Speed]]:
    """Ours and every other system that is installed, in turns, so that a slow moment of the machine hits all alike."""
    wanted = [(system, "post") for system in installed() if system.name not in ("rqjobs", "RQ")]
    wanted += [(replace(system, name="BullMQ by fetch"), "fetch") for system, _ in wanted if system.name == "BullMQ"]
    found: dict[str, list[Speed]] = {"rqjobs": [], MIXED: []}
    for _ in range(runs):
        found["rqjobs"].append(ours(on, receiver, seconds, dead=False))
        found[MIXED].append(ours(on, receiver, seconds, dead=True))
        for system, kind in wanted:
            if only and system.name not in only:
                continue
            try:
                found.setdefault(system.name, []).append(peer(on, receiver, system, kind, seconds))
            except RuntimeError as error:  # a peer that does not run here says so, and the others go on
                print(f"not measured: {system.name}: {error}", flush=True)
    return found


def medians(speeds: Sequence[Speed]) -> Speed:
    """The median of each figure."""
    return Speed(*(middle(list(values)) for values in zip(*speeds, strict=True)))


def report_speeds(found: dict[str, list[Speed]]) -> None:
    """Prints how all compare."""
    middles = {name: medians(speeds) for name, speeds in found.items()}
    alone = middles["rqjobs"]
    rows = [
        [name, f"{each.rate:,.0f}", f"{alone.rate / each.rate:.2f}x", *(f"{used:.0f}" for used in each[1:])]
        for name, each in middles.items()
    ]
    others = {name: each for name, each in middles.items() if name not in ("rqjobs", MIXED)}
    heads = ["", "deliveries/s", "rqjobs is", "worker us", "redis us", "receiver us"]
    show(f"To a {DELAY * 1000:.0f} ms endpoint, {CORES} worker processes", heads, rows)
    print("the others do the bare POST: they sign nothing, guard nothing and log nothing")
    for what, names in (("peer", others), ("peer in Python", [name for name in others if "BullMQ" not in name])):
        if names:
            best = max(names, key=lambda name: others[name].rate)
            print(f"{alone.rate / others[best].rate:.2f} x the best {what}, {best} (goal 2 x)")
    pairs = list(zip(found["rqjobs"], found[MIXED], strict=True))
    by_rate, by_cpu = (
        [mixed.rate / own.rate for own, mixed in pairs],
        [sum(own[1:]) / sum(mixed[1:]) for own, mixed in pairs],
    )
    print(f"beside a dead destination {middle(by_rate):.2f} x the rate alone, run by run (goal 0.8 x)")
    print(f"{middle(by_cpu):.2f} x by the CPU time of worker, Redis and receiver")


def report_latencies(receiver: Receiver, seconds: float) -> None:
    """Prints what a destination that falls silent costs the deliveries to another."""
    latencies(receiver, 2, list)
    alone = latencies(receiver, seconds, list)
    together = latencies(receiver, seconds, lambda: jobs([receiver.url(dead=True)]))
    rows = [
        [name, f"{middle(values):.1f}", f"{p99(values):.1f}", f"{values[-1]:.1f}"]
        for name, values in (("alone", alone), ("beside a silent one", together))
    ]
    title = f"{STEADY} deliveries a second, from the enqueue to the arrival"
    show(title, ["", "p50 ms", "p99 ms", "longest ms"], rows)
    print(f"p99 {p99(together) / p99(alone):.2f} x (goal under 2 x)")


def main() -> None:
    """Prints the figures and how they compare."""
    options = argparse.ArgumentParser()
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--seconds", type=float, default=3.0)
    options.add_argument("--only", nargs="*", metavar="SYSTEM", default=[], help="BullMQ Huey ...; all by default")
    options.add_argument("--work", nargs="*", choices=("latency", "speed"), default=("latency", "speed"))
    chosen = options.parse_args()
    with stage() as on, receiving() as receiver:
        os.environ |= ENVIRONMENT | {
            "REDIS_URL": f"unix://{on.socket}",
            "RQJOBS_DATA": str(on.folder / "data"),
            "DATABASE_URL": f"sqlite:///{on.folder}/rqjobs.db",
            "BENCH_URL": receiver.url(),
        }
        use_settings(None)
        if "latency" in chosen.work:
            with our_workers(on):
                report_latencies(receiver, 5 * chosen.seconds)
        if "speed" in chosen.work:
            report_speeds(measure(on, receiver, chosen.runs, chosen.seconds, chosen.only))


if __name__ == "__main__":
    main()
