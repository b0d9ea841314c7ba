"""This tree against another one, for instance the commit before: CPU time of each job, both trees in turns.

``python -m bench.compare --against PATH [--runs N] [--only NAME ...]``. PATH is a checkout; its ``.venv`` is used if it
has one. Both trees use one Redis. Rates depend on what else the machine does, CPU time does so much less.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.systems import APPS, ROOT, Stage, middle, show, stage
from bench.webhooks import ENVIRONMENT, Receiver, receiving

NOOP_JOBS, SLEEP_JOBS, SINGLE_JOBS, LATENCY_JOBS = 30_000, 2_000, 3_000, 60
WARM_UP, DELIVERIES, BESIDE, REFUSED = 300, 8_000, 3_000, 1_000
REFUSED_SECONDS, IDLE_SECONDS = 6.0, 5.0
STARTS = 3
"""Processes for one figure of the import and of ``rqjobs health``."""
ALLOWED = 1.03
"""A larger ratio is marked."""
Figures = dict[str, float]


@dataclass(frozen=True)
class Tree:
    """A checkout, with the data folder of its processes."""

    root: Path
    data: Path

    @property
    def python(self) -> str:
        own = self.root / ".venv" / "bin" / "python"
        return str(own) if own.exists() else sys.executable

    def environment(self, on: Stage) -> dict[str, str]:
        return {
            **on.environment(),
            **ENVIRONMENT,
            "PYTHONPATH": str(self.root),
            "RQJOBS_DATA": str(self.data),
            "DATABASE_URL": f"sqlite:///{self.data}/rqjobs.db",
        }

    def task(self, on: Stage, *args: object) -> list[float]:
        """Runs one task of bench/apps/compare_tasks.py to its end."""
        command = [self.python, str(APPS / "compare_tasks.py"), *map(str, args)]
        done = subprocess.run(
            command, env=self.environment(on), stdout=subprocess.PIPE, text=True, check=True, cwd=self.data
        )
        figures: list[float] = json.loads(done.stdout)
        return figures

    @contextmanager
    def worker(self, on: Stage, *queues: str) -> Iterator[psutil.Process]:
        """A worker of these queues, for as long as the block runs."""
        command = [self.python, "-m", "rqjobs", "worker", *queues]
        with (self.data / "worker.log").open("w") as log:
            process = subprocess.Popen(command, env=self.environment(on), stdout=log, stderr=log, cwd=self.data)
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def cpu(process: psutil.Process) -> float:
    """CPU milliseconds of a process and of its children so far."""
    total = 0.0
    for part in (process, *process.children(recursive=True)):
        clock = (~part.pid << 3) | 2  # clock_getcpuclockid(3): exact, where /proc counts in steps of 10 ms
        total += 1000 * time.clock_gettime(clock)
    return total


class Meter:
    """CPU milliseconds of a worker and of Redis since it was made."""

    def __init__(self, on: Stage, worker: psutil.Process) -> None:
        self.on, self.worker = on, worker
        self.start = self._used()

    def _used(self) -> tuple[float, float]:
        return cpu(self.worker), 1000 * self.on.redis_cpu()

    def read(self) -> tuple[float, float]:
        worker, redis = (now - start for start, now in zip(self.start, self._used(), strict=True))
        return worker, redis


def each(name: str, used: Sequence[float], count: float, process: str = "worker") -> Figures:
    """Microseconds of CPU for each of ``count`` jobs: of the process, and of Redis."""
    own, redis = (1000 * value / count for value in used)
    return {f"{name}, {process} us": own, f"{name}, Redis us": redis}


def run_jobs(on: Stage, tree: Tree, kind: str, count: int) -> Figures:
    """Jobs that wait in Redis before their worker starts, without its start."""
    *enqueued, batch = tree.task(on, kind, count)
    with tree.worker(on, f"bench-{kind}") as worker:
        wait_for(on, 1)
        meter, begun = Meter(on, worker), len(on.times())
        wait_for(on, count)
        figures = each(f"{kind} job", meter.read(), len(on.times()) - begun)
    return figures | (each("enqueue in bulk", enqueued, batch, "caller") if kind == "noop" else {})


def wait_for(on: Stage, count: int) -> None:
    if not on.until(count, 120):
        raise RuntimeError(f"not done within 120 s: {count} jobs; {on.folder} has the worker's log")


def measure_noop(on: Stage, tree: Tree, _receiver: Receiver) -> Figures:
    return run_jobs(on, tree, "noop", NOOP_JOBS)


def measure_sleep(on: Stage, tree: Tree, _receiver: Receiver) -> Figures:
    return run_jobs(on, tree, "sleep", SLEEP_JOBS)


def measure_single(on: Stage, tree: Tree, _receiver: Receiver) -> Figures:
    *used, batch = tree.task(on, "one", SINGLE_JOBS)
    return each("enqueue one by one", used, batch, "caller")


def measure_webhooks(on: Stage, tree: Tree, receiver: Receiver) -> Figures:
    """Deliveries, signed and logged, that wait in Redis while their warm worker is paused; the first 95 %."""
    with warm_worker(on, tree, receiver) as worker:
        command_cpu(on, tree, "pause", "webhooks")
        tree.task(on, "webhooks", receiver.url(), DELIVERIES, receiver.url(), 0)
        command_cpu(on, tree, "resume", "webhooks")
        begun = receiver.arrived()
        receiver.until(begun + 100)
        meter, first = Meter(on, worker), receiver.arrived()
        receiver.until(begun + int(0.95 * DELIVERIES))
        return each("webhook", meter.read(), receiver.arrived() - first)


@contextmanager
def warm_worker(on: Stage, tree: Tree, receiver: Receiver) -> Iterator[psutil.Process]:
    """A worker of webhooks that has imported what deliveries and their log need."""
    start = receiver.arrived()
    with tree.worker(on, "webhooks") as worker:
        tree.task(on, "webhooks", receiver.url(), WARM_UP, receiver.url(), 0)
        receiver.until(start + WARM_UP)
        time.sleep(2)
        yield worker


def measure_refused(on: Stage, tree: Tree, receiver: Receiver) -> Figures:
    """Deliveries beside others to a port that refuses, over a fixed time."""
    with warm_worker(on, tree, receiver) as worker:
        start = receiver.arrived()
        with socket.create_server(("127.0.0.1", 0)) as server:
            refused = f"http://127.0.0.1:{server.getsockname()[1]}/hook"
        meter, end = Meter(on, worker), time.monotonic() + REFUSED_SECONDS
        tree.task(on, "webhooks", receiver.url(), BESIDE, refused, REFUSED)
        receiver.until(start + BESIDE)
        time.sleep(max(0.0, end - time.monotonic()))
        return each("webhook beside refused ones", meter.read(), BESIDE)


def measure_idle(on: Stage, tree: Tree, _receiver: Receiver) -> Figures:
    """A worker of all queues that has nothing to do; then one job at a time."""
    with tree.worker(on) as worker:
        time.sleep(3)
        meter = Meter(on, worker)
        time.sleep(IDLE_SECONDS)
        idle = [value / IDLE_SECONDS for value in meter.read()]
        family = [worker, *worker.children(recursive=True)]
        memory = worker.memory_info().rss / 2**20
        private = sum(part.memory_full_info().uss for part in family) / 2**20
        (latency,) = tree.task(on, "latency", LATENCY_JOBS)
    return {
        "idle worker, ms of CPU a second": idle[0],
        "idle worker, Redis ms a second": idle[1],
        "latency of a no-op job, ms": latency,
        "worker's memory (RSS), MiB": memory,
        "private memory with its helpers, MiB": private,
    }


def measure_start(on: Stage, tree: Tree, _receiver: Receiver) -> Figures:
    """CPU of the import, and of ``rqjobs health`` from its start to its end."""
    imports = [tree.task(on, "import")[0] for _ in range(STARTS)]
    health = [command_cpu(on, tree, "health") for _ in range(STARTS)]
    return {"import rqjobs, ms": middle(imports), "rqjobs health, ms": middle(health)}


def command_cpu(on: Stage, tree: Tree, *args: str) -> float:
    """CPU milliseconds of one command of rqjobs."""
    command = [tree.python, "-m", "rqjobs", *args]
    process = subprocess.Popen(command, env=tree.environment(on), stdout=subprocess.DEVNULL, cwd=tree.data)
    used = os.wait4(process.pid, 0)[2]
    process.returncode = 0
    return 1000 * (used.ru_utime + used.ru_stime)


MEASURES: dict[str, Callable[[Stage, Tree, Receiver], Figures]] = {
    "noop": measure_noop,
    "sleep": measure_sleep,
    "single": measure_single,
    "webhooks": measure_webhooks,
    "refused": measure_refused,
    "idle": measure_idle,
    "start": measure_start,
}


def measure(
    on: Stage, trees: Sequence[Tree], receiver: Receiver, runs: int, names: Sequence[str]
) -> list[list[Figures]]:
    """For each tree the figures of each run. The trees take turns at each figure, in an order that changes."""
    found: list[list[Figures]] = [[{} for _ in range(runs)] for _ in trees]
    for run in range(runs):
        for name in names:
            for number in range(len(trees)) if run % 2 else reversed(range(len(trees))):
                on.clear()
                found[number][run] |= MEASURES[name](on, trees[number], receiver)
        print(f"run {run + 1} of {runs}, load {os.getloadavg()[0]:.1f}", flush=True)
    return found


def report(before: Sequence[Figures], now: Sequence[Figures]) -> None:
    """One line for each figure: the medians, and their ratio."""
    rows = []
    for name in before[0]:
        old, new = (middle([figures[name] for figures in runs]) for runs in (before, now))
        ratios = sorted(after[name] / start[name] for start, after in zip(before, now, strict=True) if start[name])
        ratio = new / old if old else 1.0
        spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}" if ratios else ""
        rows.append([name, f"{old:.2f}", f"{new:.2f}", f"{ratio:.3f}", "!" if ratio > ALLOWED else "", spread])
    show("CPU time unless another unit is named", ["", "against", "this", "ratio", "", "run by run"], rows)


def main() -> None:
    """Prints the medians of both trees and their ratios; ``!`` marks what is more than 3 % worse."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--against", type=Path, required=True, metavar="PATH", help="the other checkout")
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--only", nargs="*", choices=MEASURES, default=list(MEASURES))
    chosen = options.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the start", flush=True)
    os.environ |= ENVIRONMENT
    with stage() as on, receiving() as receiver:
        trees = []
        for name, root in (("against", chosen.against.resolve()), ("this", ROOT)):
            (on.folder / name).mkdir()
            trees.append(Tree(root, on.folder / name))
        before, now = measure(on, trees, receiver, chosen.runs, chosen.only)
        report(before, now)


if __name__ == "__main__":
    main()
