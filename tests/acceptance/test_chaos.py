"""Workers killed with -9 at random, Redis restarted: every job's effect is there, none is lost."""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest

from rqjobs import enqueue_many
from rqjobs.connection import connect
from rqjobs.embedded import ensure_server, stop_server
from tests.support.tasks import BatchTask, CoroutineTask, Task, notes


def chaos(workers, tmp_path, monkeypatch, *, jobs, kills, restarts, seed, crew=3):
    """Runs ``jobs`` jobs while ``kills`` workers are killed and Redis is restarted ``restarts`` times."""
    chance = random.Random(seed)
    folder = tmp_path / "redis"
    log = tmp_path / "log"
    monkeypatch.setenv("TASKS_LOG", str(log))
    monkeypatch.setenv("RQJOBS_LEASE", "2")
    monkeypatch.setenv("REDIS_URL", f"unix://{ensure_server(folder)}")
    redis = connect()
    redis.config_set("appendfsync", "always")
    models = (Task, Task, CoroutineTask, BatchTask)
    work = [
        models[n % 4](do="sleep" if n % 4 != 3 else "return", mark=str(n), args={"seconds": chance.uniform(0, 0.2)})
        for n in range(jobs)
    ]
    enqueue_many(work, attempts=100, backoff="fixed:0s", connection=redis)
    names = ("tasks", "coroutines", "batches")

    def start():
        return workers.start(*names, RQJOBS_IMPORT="tests.support.tasks")

    def done():
        return sum(int(redis.hget(f"rqjobs:totals:{name}", "completed") or 0) for name in names)

    alive = [start() for _ in range(crew)]
    running_at_kills = 0
    instants = sorted(chance.sample(range(kills), restarts))
    for kill in range(kills):
        time.sleep(chance.uniform(0.05, 0.5))
        if kill in instants:
            stop_server(folder)
            time.sleep(0.3)
            ensure_server(folder)
            redis.config_set("appendfsync", "always")
        victim = alive.pop(chance.randrange(len(alive)))
        victim.kill()
        victim.wait()
        running_at_kills += 100
        alive.append(start())
    deadline = time.monotonic() + 120
    while done() + dead(redis, names) < jobs and time.monotonic() < deadline:
        time.sleep(0.1)
    workers.stop()
    effects = {words[0] for words in notes(log) if words[2] != "begins"}
    missing = {str(n) for n in range(jobs)} - effects
    poison = dead(redis, names)
    runs = Counter(words[0] for words in notes(log) if words[2] == "begins" or words[2].startswith("batch"))
    left = {name: redis.zcard(f"rq:wip:{name}") + redis.llen(f"rq:queue:{name}") for name in names}
    redis.close()
    stop_server(folder)
    assert done_all(left), left
    assert len(missing) <= poison, (missing, poison)
    return runs, poison


def dead(redis, names):
    return sum(redis.zcard(f"rq:failed:{name}") for name in names)


def done_all(left):
    return not any(left.values())


def test_nothing_is_lost_when_workers_are_killed(workers, tmp_path, monkeypatch):
    runs, poison = chaos(workers, tmp_path, monkeypatch, jobs=400, kills=6, restarts=1, seed=1, crew=2)
    assert len(runs) == 400
    assert poison == 0
    assert sum(runs.values()) < 400 + 7 * 2 * (50 + 200 + 100)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_lost_when_workers_are_killed_a_hundred_times(workers, tmp_path, monkeypatch, seed):
    runs, poison = chaos(workers, tmp_path, monkeypatch, jobs=2000, kills=100, restarts=2, seed=seed)
    assert len(runs) == 2000
    print(f"{sum(runs.values()) - 2000} of 2000 jobs ran again, {poison} died with three workers")
