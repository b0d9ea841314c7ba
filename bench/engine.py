"""Jobs a second and latency of rqjobs, RQ and, where installed, the others, on one machine in one run.

``python -m bench.engine [--runs N] [--seconds S]``; the jobs wait in Redis before a worker starts.
"""

from __future__ import annotations

import argparse
import random
import time

import psutil

from bench.systems import Stage, System, installed, middle, sent, show, stage

WORK = ("noop", "sleep", "latency")
GUESS = {"rqjobs": 20_000, "BullMQ": 16_000, "Dramatiq": 3_000, "taskiq": 2_500, "SAQ": 2_000, "Huey": 1_500}


def throughput(on: Stage, system: System, kind: str, slots: int, seconds: float) -> dict[str, float]:
    """Jobs a second, CPU a job, memory."""
    if kind == "sleep":
        rate = slots * 20 if system.slots else 18
    else:
        rate = GUESS.get(system.name, 800 if system.slots else 60)
    count = max(int(rate * seconds), 60)
    on.clear()
    on.produce(system, "fill", kind, str(count))
    with on.worker(system, kind, slots) as process:
        on.until(1, 30)
        redis_before, cpu_before, begun = on.redis_cpu(), cpu(process), len(on.times())
        done = on.until(count, 12 * seconds)
        redis_after, cpu_after = on.redis_cpu(), cpu(process)
        memory = sum(part.memory_info().rss for part in family(process))
    times = on.times()
    if not done or len(times) < 2:
        return {}
    jobs = len(times) - begun
    return {
        "rate": (len(times) - 1) / (times[-1] - times[0]),
        "worker": 1e6 * (cpu_after - cpu_before) / jobs,
        "redis": 1e6 * (redis_after - redis_before) / jobs,
        "memory": memory / 2**20,
    }


def family(process: psutil.Process) -> list[psutil.Process]:
    """A process and what it has started."""
    return [process, *process.children(recursive=True)]


def cpu(process: psutil.Process) -> float:
    """CPU seconds of a process and of its children, the dead ones too."""
    return sum(sum(part.cpu_times()[:4]) for part in family(process))


def latency(on: Stage, system: System, count: int) -> list[float]:
    """Milliseconds from each enqueue to the job's end, one job at a time."""
    on.clear()
    with on.worker(system, "noop", 50):
        on.produce(system, "fill", "noop", "1")
        on.until(1, 30)
        time.sleep(1)
        on.marks.write_bytes(b"")
        begun = sent(on.produce(system, "latency", str(count)))
    return sorted(1000 * (end - start) for start, end in zip(begun, on.times(), strict=False))


def main() -> None:
    """Measures in turns, so that a busy moment of the machine hits all systems alike."""
    options = argparse.ArgumentParser()
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--seconds", type=float, default=3.0)
    options.add_argument("--only", nargs="*", metavar="SYSTEM", default=[], help="rqjobs BullMQ ...; all by default")
    options.add_argument(
        "--work", nargs="*", choices=("noop", "sleep", "latency"), default=("noop", "sleep", "latency")
    )
    chosen = options.parse_args()
    systems = [system for system in installed() if not chosen.only or system.name in chosen.only]
    with stage() as on:
        for title, kind, slots in (("No-op", "noop", 50), ("50 ms sleep", "sleep", 50), ("50 ms sleep", "sleep", 200)):
            if kind not in chosen.work:
                continue
            found: dict[str, list[dict[str, float]]] = {system.name: [] for system in systems}
            for _run in range(chosen.runs):
                order = [system for system in systems if system.slots or slots == 50]
                random.shuffle(order)
                for system in order:
                    try:
                        result = throughput(on, system, kind, slots, chosen.seconds)
                    except RuntimeError as error:  # a peer that does not run here says so, and the others go on
                        print(f"not measured: {error}", flush=True)
                        continue
                    if result:
                        found[system.name].append(result)
            report(f"{title}, one process, {slots} slots", found)
        rows = []
        for system in systems if "latency" in chosen.work else ():
            try:
                waits = latency(on, system, 100)
            except RuntimeError as error:
                print(f"not measured: {error}", flush=True)
                continue
            rows.append([system.name, f"{waits[len(waits) // 2]:.2f}", f"{waits[int(len(waits) * 0.99) - 1]:.2f}"])
        if rows:
            show("At idle, from the enqueue to the job's end", ["", "p50 ms", "p99 ms"], rows)


def report(title: str, found: dict[str, list[dict[str, float]]]) -> None:
    """One table of medians, with each rate's ratio to ours."""
    ours = middle([run["rate"] for run in found["rqjobs"]])
    rows = []
    for name, runs in found.items():
        if not runs:
            continue
        values = {what: middle([run[what] for run in runs]) for what in runs[0]}
        rows.append([
            name, f"{values['rate']:,.0f}", f"{ours / values['rate']:.2f}x", f"{values['worker']:.0f}",
            f"{values['redis']:.0f}", f"{values['memory']:.0f}",
        ])  # fmt: skip
    show(title, ["", "jobs/s", "rqjobs is", "worker us", "redis us", "MiB"], rows)


if __name__ == "__main__":
    main()
