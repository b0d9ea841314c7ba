"""A Redis user with the least rights that docs/deployment.md names is enough for all of rqjobs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
import redis as redis_py

from rqjobs import enqueue_many, wait_for_result
from rqjobs.broker.connection import close_connection
from rqjobs.config.settings import use_settings
from rqjobs.database import get_engine
from rqjobs.database.schema import init_database
from tests.support.processors import ProbeJob
from tests.support.tasks import BatchTask, CoroutineTask, ProcessTask, Task
from tests.support.workers import ROOT, Workers, eventually

ENV = {"RQJOBS_IMPORT": "tests.support.tasks tests.support.processors"}


@pytest.fixture
def rights() -> list[str]:
    """What the page tells to grant."""
    found = re.search(r"ACL SETUSER rqjobs on '>\w+' (.+)", (ROOT / "docs" / "deployment.md").read_text())
    assert found
    return found[1].split()


@pytest.fixture
def least(redis: redis_py.Redis, redis_url: str, rights: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """REDIS_URL of such a user."""
    redis.execute_command("ACL", "SETUSER", "rqjobs", "reset", "on", ">secret", *rights)
    redis.execute_command("ACL", "LOG", "RESET")
    url = redis_url.replace("unix://", "unix://rqjobs:secret@")
    monkeypatch.setenv("REDIS_URL", url)
    use_settings(None)
    close_connection()
    yield url
    close_connection()
    redis.execute_command("ACL", "DELUSER", "rqjobs")


def refused(redis: redis_py.Redis) -> set[str]:
    """What the user was refused, in lower case."""
    return {entry["object"].lower().partition("|")[0] for entry in redis.acl_log()}


def test_a_user_of_least_rights_is_enough(
    redis: redis_py.Redis, least: str, workers: Workers, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    init_database(get_engine())
    worker = workers.start(**ENV)
    jobs = enqueue_many([model(mark=model.__name__) for model in (Task, CoroutineTask, BatchTask, ProcessTask)])
    jobs += enqueue_many([Task(mark="later")], delay="1s")
    with get_engine().begin() as transaction:
        jobs += enqueue_many([ProbeJob(log=str(tmp_path / "log"), value=3)], outbox=transaction)
    for job in jobs:
        wait_for_result(job, "120s")
    (dead,) = enqueue_many([Task(do="fail")], attempts=1)
    (runs,) = enqueue_many([CoroutineTask(do="sleep", args={"seconds": 300})])
    eventually(lambda: redis.hget(f"rq:job:{dead.id}", "status") == b"failed")
    eventually(lambda: redis.hget(f"rq:job:{runs.id}", "status") == b"started")
    assert "asked to stop" in workers.run("jobs", "stop", runs.id, **ENV).stdout
    eventually(lambda: redis.hget(f"rq:job:{runs.id}", "status") == b"stopped")
    commands = ["health", "failed groups", f"failed purge {runs.id}", "failed requeue --all", "pause email", "doctor"]
    for command in map(str.split, commands):
        done = workers.run(*command, **ENV)
        assert "NOPERM" not in done.stdout + done.stderr, command
        assert "Traceback" not in done.stderr, command
    assert json.loads(workers.run("health", "--json", **ENV).stdout)["queues"]
    worker.terminate()
    assert worker.wait(60) == 0
    assert "NOPERM" not in workers.logs()
    assert refused(redis) <= {"info", "config", "client", "slowlog"}  # asked for by health and doctor, who do without
