"""Groups with real workers that are killed: with one job at once, the order of a group is never broken."""

from __future__ import annotations

import json
import random
import time
from itertools import pairwise
from pathlib import Path

import pytest

from rqjobs import enqueue_many, queue_health
from tests.support.processors import ProbeJob
from tests.support.workers import Workers

SHORT = pytest.param((20, 5, 2, 2), id="short")
LONG = pytest.param((500, 20, 50, 4), id="long", marks=pytest.mark.slow)


@pytest.mark.parametrize("sizes", [SHORT, LONG])
def test_the_order_of_a_group_survives_kills_and_retries(
    workers: Workers, redis, tmp_path: Path, sizes: tuple[int, int, int, int]
) -> None:
    groups, jobs, kills, processes = sizes
    environment = {"RQJOBS_PROBE_GROUP_CONCURRENCY": "1", "RQJOBS_PROBE_CONCURRENCY": "20"}
    log, choose = tmp_path / "log", random.Random(7)

    def put(number: int) -> None:
        found = []
        for group in range(groups):
            job = ProbeJob(log=str(log), value=[group, number], fail_times=int(choose.random() < 0.1), seconds=0.01)
            found.append((job, {"group": f"group {group}", "attempts": 100, "backoff": "fixed:0.1s"}))
        enqueue_many(found)

    def ended() -> int:  # done, or dead: three workers may have been killed that ran the same job
        return next(queue.completed + queue.failed for queue in queue_health() if queue.name == "probe")

    for number in range(jobs - 1):
        put(number)
    alive = [workers.start("probe", **environment) for _ in range(processes)]
    deadline, killed, total = time.monotonic() + 120 + 10 * kills, 0, groups * (jobs - 1)
    while ended() < total or killed < kills:
        assert time.monotonic() < deadline, f"{ended()} of {total} have ended, {killed} workers were killed"
        if killed < kills and ended() * (kills + 1) > killed * total:
            killed += 1
            victim = alive.pop(0)
            victim.kill()
            victim.wait()
            alive.append(workers.start("probe", **environment))
        time.sleep(0.02)
    put(jobs - 1)
    while ended() < groups * jobs:
        assert time.monotonic() < deadline, f"{ended()} of {groups * jobs} have ended"
        time.sleep(0.02)

    runs: dict[int, list[int]] = {group: [] for group in range(groups)}
    for line in log.read_text().splitlines():
        group, number = json.loads(line)["value"]
        runs[group].append(number)
    for group, seen in runs.items():
        assert set(seen) == set(range(jobs)), f"group {group}"
        assert all(before <= after for before, after in pairwise(seen)), f"group {group}: {seen}"
