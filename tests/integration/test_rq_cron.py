"""RQ's CronScheduler enqueues pickles: our workers refuse them, and the reason says where they came from."""

from __future__ import annotations

import pytest
from rq.cron import CronScheduler

from tests.support.tasks import leave_a_note


@pytest.mark.parametrize("engine", ["threads", "rq"])
def test_the_reason_names_rqs_scheduler(workers, redis, engine):
    scheduler = CronScheduler(redis, logging_level="ERROR")
    scheduler.register(leave_a_note, "tasks", interval=60)
    scheduler.enqueue_jobs()
    done = workers.run("worker", "tasks", "--burst", "--engine", engine, RQJOBS_IMPORT="tests.support.tasks")
    assert done.returncode == 0, done.stderr
    assert not redis.exists("noted")
    (dead,) = workers.json("failed", "list", "--queue", "tasks", RQJOBS_IMPORT="tests.support.tasks")
    assert "is a pickle" in dead["reason"]
    assert "CronScheduler" in dead["reason"]
