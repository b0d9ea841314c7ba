"""Faults of workers and their clocks, and jobs that harm their worker."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos import jobs
from tests.chaos.ledger import append
from tests.chaos.run import Run

FAKETIME = next((str(path) for path in Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)


def workers_killed(run: Run) -> None:
    for _ in range(run.times(20, 2)):
        time.sleep(random.uniform(0.5, 2))
        run.crew.kill(random.choice(run.crew.workers))


def workers_restarted(run: Run) -> None:
    for _ in range(run.times(10, 1)):
        time.sleep(random.uniform(1, 3))
        worker = random.choice(run.crew.workers)
        if not run.crew.restart(worker):
            run.faults.append(f"{worker.log.name}: did not end at SIGTERM")


def workers_stopped(run: Run) -> None:
    for _ in range(run.times(8, 1)):
        with run.crew.frozen(random.choice(run.crew.workers)):
            run.pause(random.uniform(2, 12), 5)
        time.sleep(random.uniform(1, 3))


def workers_killed_and_stopped(run: Run) -> None:
    workers_killed(run)
    workers_stopped(run)


def clock_of_a_worker(seconds: int) -> Callable[[Run], None]:
    def inject(run: Run) -> None:
        run.outside.far_away = True
        run.crew.add(**clock(seconds))
        run.pause(60, 20)
        run.outside.far_away = False
        run.pause(30, 5)

    return inject


def clock(seconds: int) -> dict[str, str]:
    """The environment of a process whose clock is wrong by ``seconds``, and which measures time well."""
    return {"LD_PRELOAD": FAKETIME or "", "FAKETIME": f"{seconds:+d}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def nothing(run: Run) -> None:
    run.pause(60, 5)


def poison(how: str) -> Callable[[Run], None]:
    def inject(run: Run) -> None:
        for number in range(run.times(3, 1)):
            mark = f"poison.{how}{number}"
            job = jobs.poison.enqueue({"mark": mark, "how": how})
            append(run.ledger.acknowledged_file, f"{mark} {job.id} {time.time():.3f}")
            run.pause(60, 15)

    return inject


def no_faketime() -> str | None:
    """Why clocks cannot be wrong here."""
    return None if FAKETIME else "libfaketime is not installed: apt-get install faketime"
