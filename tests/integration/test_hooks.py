"""Hooks: called once for each start and each outcome that is written, without any effect on the jobs."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
import sentry_sdk
import structlog

import rqjobs
from rqjobs import JobEvent, enqueue, hooks
from rqjobs.errors import InvalidHook
from rqjobs.hooks import Kind
from rqjobs.testing import drain
from rqjobs.worker import hook_threads
from rqjobs.worker.hook_threads import HookThreads
from tests.support.tasks import BatchTask, CoroutineTask, ProcessTask, Task
from tests.support.workers import ROOT, Workers, eventually

ENV = {"RQJOBS_IMPORT": "tests.support.hooked"}


@pytest.fixture(autouse=True)
def no_other_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "_hooks", {})


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    path = tmp_path / "hooks"
    monkeypatch.setenv("HOOKS_LOG", str(path))
    return lambda: [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def kinds(events: list[dict[str, Any]], job_id: str, hook: str = "everything") -> list[str]:
    return [event["kind"] for event in events if (event["job_id"], event["hook"]) == (job_id, hook)]


def test_each_start_and_each_outcome_calls_the_hooks(workers: Workers, events: Callable[[], list[dict]]) -> None:
    models = (Task, CoroutineTask, BatchTask, ProcessTask)
    good = [enqueue(model(mark="m")) for model in models]
    dead = [enqueue(model(do="fail"), attempts=2, backoff="fixed:0s") for model in models]
    workers.start(**ENV)
    ends = {"done", "dead"}
    eventually(
        lambda: len([event for event in events() if event["kind"] in ends and event["hook"] == "everything"]) == 8
    )
    for job in good:
        assert kinds(events(), job.id) == ["start", "done"]
    for job in dead:
        assert kinds(events(), job.id) == ["start", "retry", "start", "dead"]
    eventually(lambda: kinds(events(), good[1].id, "coroutines") == ["done"])
    assert {event["queue"] for event in events() if event["hook"] == "coroutines"} == {"coroutines"}
    done = next(event for event in events() if event["job_id"] == good[0].id and event["kind"] == "done")
    assert (done["queue"], done["lane"], done["attempt"], done["job"]["mark"]) == ("tasks", "tasks", 1, "m")
    assert done["result"] == {"attempt": 1, "of": 3}
    assert done["seconds"] >= 0
    retry, last = (
        next(e for e in events() if e["job_id"] == dead[0].id and e["kind"] == kind) for kind in ("retry", "dead")
    )
    assert (retry["attempt"], retry["attempts"], last["attempt"]) == (1, 2, 2)
    assert retry["error"] == "ValueError: attempt 1 failed"
    assert "Traceback" in retry["traceback"]
    assert datetime.fromisoformat(retry["retry_at"]) >= datetime.fromisoformat(retry["ended_at"])
    assert workers.logs().count("a hook failed: tests.support.hooked.fails") == 4


def test_under_rqs_own_engine(workers: Workers, events: Callable[[], list[dict]]) -> None:
    good = enqueue(Task(mark="m"))
    dead = enqueue(Task(do="fail"), attempts=2, backoff="fixed:0s")
    workers.run("worker", "--burst", "--engine", "rq", "tasks", RQJOBS_IMPORT="tests.support.hooked", HOOKS_HANG="0")
    assert kinds(events(), good.id) == ["start", "done"]
    assert kinds(events(), dead.id) == ["start", "retry", "start", "dead"]
    assert [event["attempt"] for event in events() if event["job_id"] == dead.id] == [1, 1, 2, 2]


def test_a_job_that_dies_with_its_worker_calls_the_hook(
    workers: Workers, events: Callable[[], list[dict]], redis: redis_py.Redis
) -> None:
    job = enqueue(Task(do="sleep", args={"seconds": 3600}), attempts=1)
    worker = workers.start("tasks", RQJOBS_LEASE="60", **ENV)
    eventually(lambda: "start" in kinds(events(), job.id))
    eventually(lambda: redis.hget(f"rq:job:{job.id}", "status") == b"started")
    worker.send_signal(signal.SIGKILL)
    (event,) = eventually(lambda: [event for event in events() if event["kind"] == "dead"])
    assert event["job_id"] == job.id
    assert event["error"].startswith("WorkerDied")


@pytest.mark.usefixtures("redis")
def test_drained_jobs_call_the_hooks() -> None:
    seen: list[tuple[Kind, str]] = []

    @rqjobs.on("start", "done", "dead")
    def hook(event: JobEvent) -> None:
        seen.append((event.kind, event.job_id))

    good, bad = enqueue(Task()), enqueue(Task(do="dead"))
    drain("tasks")
    assert seen == [("start", good.id), ("done", good.id), ("start", bad.id), ("dead", bad.id)]


def event_of(number: int) -> JobEvent:
    return JobEvent(kind="done", job_id=str(number), queue="tasks", lane="tasks", attempt=1, attempts=1)


def test_events_of_a_hook_that_hangs_are_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hook_threads, "MAX_WAITING", 3)
    monkeypatch.setattr(hook_threads, "LIMIT", 0.0)
    go_on, called, others = threading.Event(), [], []

    @rqjobs.on("done")
    def slow(event: JobEvent) -> None:
        called.append(event.job_id)
        go_on.wait(60)

    @rqjobs.on("done")
    def quick(event: JobEvent) -> None:
        others.append(event.job_id)

    threads = HookThreads()
    threads.put("done", "tasks", lambda: event_of(0))
    eventually(lambda: called == ["0"])
    for number in range(1, 10):
        threads.put("done", "tasks", lambda number=number: event_of(number))
        eventually(lambda number=number: len(others) == number + 1)
    time.sleep(0.01)
    threads.check()
    go_on.set()
    threads.close()
    assert called == ["0", "1", "2", "3"]
    assert "a hook has not returned" in caplog.text
    dropped = [record.fields for record in caplog.records if "events of a hook were dropped" in record.message]
    assert [fields["dropped"] for fields in dropped] == [6]


def test_an_async_hook_that_hangs_is_cancelled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import asyncio

    monkeypatch.setattr(hook_threads, "LIMIT", 0.05)
    ended: list[str] = []

    @rqjobs.on("done")
    async def hangs(event: JobEvent) -> None:
        await asyncio.sleep(0 if event.job_id == "1" else 3600)
        ended.append(event.job_id)

    threads = HookThreads()
    for number in range(2):
        threads.put("done", "tasks", lambda number=number: event_of(number))
    threads.close()
    assert ended == ["1"]
    assert "a hook failed" in caplog.text


def recipe(heading: str) -> None:
    page = (ROOT / "docs" / "jobs" / "hooks.md").read_text()
    found = re.search(rf"## {heading}\n+```python\n(.*?)```", page, re.DOTALL)
    assert found
    exec(compile(found[1], heading, "exec"), {"__name__": "recipe"})


@pytest.mark.usefixtures("redis")
def test_the_recipe_for_sentry() -> None:
    envelopes: list[sentry_sdk.envelope.Envelope] = []

    class Kept(sentry_sdk.transport.Transport):
        def capture_envelope(self, envelope: sentry_sdk.envelope.Envelope) -> None:
            envelopes.append(envelope)

    sentry_sdk.init("http://key@127.0.0.1:9/1", transport=Kept, default_integrations=False)
    try:
        recipe("Sentry")
        job = enqueue(Task(do="dead"))
        drain("tasks")
    finally:
        sentry_sdk.get_client().close()
        sentry_sdk.get_global_scope().set_client(None)  # init() would turn its integrations on, that for RQ too
    (sent,) = [found for envelope in envelopes if (found := envelope.get_event())]
    assert sent["message"] == "tasks: it cannot be done"
    assert (sent["tags"]["queue"], sent["contexts"]["job"]["id"]) == ("tasks", job.id)


@pytest.mark.usefixtures("redis")
def test_the_recipe_for_structlog() -> None:
    with structlog.testing.capture_logs() as logged:
        recipe("structlog")
        job = enqueue(Task(do="fail"), attempts=2)
        drain("tasks")
    assert [(line["event"], line["job_id"], line["attempt"]) for line in logged] == [
        ("job retry", job.id, 1), ("job dead", job.id, 2),
    ]  # fmt: skip


@pytest.mark.parametrize("wrong", [(), ("done", "finished")])
def test_a_hook_without_a_known_kind_is_refused(wrong: tuple[str, ...]) -> None:
    with pytest.raises(InvalidHook, match=r'write @rqjobs.on\("start" \| "done" \| "retry" \| "dead", queue=None\)'):
        rqjobs.on(*wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidHook):
        rqjobs.on(event_of)  # type: ignore[arg-type]  # without parentheses
    assert hooks.hooks_for("done") == []
