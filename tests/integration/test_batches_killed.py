"""A batch over kills of its workers: ``then`` is enqueued once, after every member, and a dead one fires it later."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import pytest
import redis as redis_py

from rqjobs import enqueue_batch, enqueue_chain
from tests.support.recurring import note_tick
from tests.support.workers import Workers, eventually

WORKER = {"RQJOBS_IMPORT": "tests.support.recurring", "RQJOBS_LEASE": "3"}


def run_killed(workers: Workers, redis: redis_py.Redis, folder: Path, *, members: int, kills: int, crew: int) -> None:
    """Kills the workers one after the other, at even steps of the progress."""
    log, end = folder / "members", folder / "then"
    member = note_tick.job({"file": str(log), "seconds": 0.02})
    batch = enqueue_batch((member for _ in range(members)), then=note_tick.job({"file": str(end)}), attempts=100)
    chain = enqueue_chain([note_tick.job({"file": str(folder / "chain"), "seconds": 0.01})] * 10, attempts=100)
    running = [workers.start("note-tick", "--threads", "4", **WORKER) for _ in range(crew)]
    for number in range(1, kills + 1):
        wanted = members * number // (kills + 1)
        eventually(lambda wanted=wanted: batch.progress().done >= wanted, timeout=300)  # type: ignore[misc]
        assert not end.exists(), "then has run too early"
        killed = running.pop(0)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        running.append(workers.start("note-tick", "--threads", "4", **WORKER))
    eventually(lambda: batch.read().state == "done" or batch.progress().dead, timeout=300)
    while batch.progress().dead:  # members that three workers died under
        assert not end.exists()
        batch.requeue_dead()
        eventually(lambda: batch.read().state == "done" or batch.progress().dead, timeout=300)
    eventually(lambda: end.exists() and end.read_text().endswith("\n"), timeout=300)
    eventually(lambda: chain.requeue_dead() or chain.read().state == "done", timeout=300)
    eventually(lambda: chain.read().state == "done", timeout=300)
    (then,) = batch.read().then
    assert set(end.read_text().split()) == {then}, "one job; a run that is killed after its line is run again"
    assert len(set(log.read_text().split())) == members
    assert batch.progress().done == batch.progress().total == members
    order = list(dict.fromkeys((folder / "chain").read_text().split()))
    assert order == sorted(order), "ids are made in the order of the links"
    assert len(order) == 10
    noted = Counter(log.read_text().split())
    assert sum(noted.values()) >= members
    assert redis.keys("rq:deferred:*") == []
    assert redis.keys(f"rqjobs:batch:{batch.id}:*") == []


def test_then_runs_once_over_kills(workers: Workers, redis: redis_py.Redis, tmp_path: Path) -> None:
    run_killed(workers, redis, tmp_path, members=150, kills=1, crew=2)


@pytest.mark.slow
def test_then_runs_once_over_a_hundred_kills(workers: Workers, redis: redis_py.Redis, tmp_path: Path) -> None:
    run_killed(workers, redis, tmp_path, members=2000, kills=100, crew=3)
