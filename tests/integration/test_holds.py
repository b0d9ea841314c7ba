"""A dependency that is away costs no job anything: its queue is held until a trial finds it again."""

from __future__ import annotations

import json
import time
from pathlib import Path

import redis as redis_py

from rqjobs import enqueue, queue_health
from rqjobs.monitoring.queue_health import QueueHealth
from tests.support.processors import ProbeJob
from tests.support.workers import Workers, eventually


def probes(folder: Path, count: int, do: str = "away", **fields: object) -> list[str]:
    log = str(folder / "runs")
    return [enqueue(ProbeJob(log=log, do=do, value=number, **fields)).id for number in range(count)]


def runs(folder: Path) -> list[dict[str, object]]:
    path = folder / "runs"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def probe_queue() -> QueueHealth:
    return next(queue for queue in queue_health() if queue.name == "probe")


def test_no_attempt_is_counted_while_a_dependency_is_unavailable(
    workers: Workers, tmp_path: Path, redis: redis_py.Redis
) -> None:
    away = tmp_path / "runs.away"
    away.touch()
    probes(tmp_path, 100)
    workers.start("probe")
    workers.start("probe")
    eventually(lambda: len(runs(tmp_path)) >= 3)
    time.sleep(3)
    seen = len(runs(tmp_path))
    assert seen < 50, "trials are single, at growing intervals"
    assert probe_queue().failed == 0
    away.unlink()
    eventually(lambda: probe_queue().completed == 100)
    queue = probe_queue()
    assert (queue.failed_total, queue.retried_total, queue.waiting) == (0, 0, 0)
    assert {run["number"] for run in runs(tmp_path)} == {1}
    logs = workers.logs()
    assert logs.count("dependency away") == 1
    assert logs.count("dependency back") == 1
