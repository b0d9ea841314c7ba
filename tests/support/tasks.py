"""Queues of the tests' own, with processors that do what a test tells them: RQJOBS_IMPORT=tests.support.tasks."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from rqjobs.attempt import Attempt, Hold
from rqjobs.broker.rq_schema import allow
from rqjobs.errors import PermanentFailure, RetryLater
from rqjobs.jobs import JobModel
from rqjobs.policies import QueuePolicy, register_queue
from rqjobs.worker.runners import time_limits


class Task(JobModel):
    """Does what it says: ``do`` names it, ``args`` has the details, ``mark`` is written down before and after."""

    queue: ClassVar[str] = "tasks"

    do: str = "return"
    mark: str = ""
    args: dict[str, Any] = Field(default_factory=dict)

    def label(self) -> str:
        return f"task {self.do} {self.mark}"


class CoroutineTask(Task):
    queue: ClassVar[str] = "coroutines"


class BatchTask(Task):
    queue: ClassVar[str] = "batches"


class ProcessTask(Task):
    queue: ClassVar[str] = "processes"


class HeldTask(Task):
    queue: ClassVar[str] = "held"


def note(job: Task, attempt: Attempt, what: str) -> None:
    """One line in a file outside Redis: the effect of a job."""
    if path := os.environ.get("TASKS_LOG"):
        line = f"{job.mark} {attempt.number} {what} {time.time():.4f} {os.getpid()}\n"
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, line.encode())
        os.close(descriptor)


def notes(path: Path) -> list[list[str]]:
    """What was noted, word by word. A write over a page's end is seen in two parts: its line is not there yet."""
    return [line.split() for line in path.read_text().rpartition("\n")[0].splitlines()] if path.exists() else []


def _raise(job: Task, attempt: Attempt) -> None:
    if job.do == "fail" and attempt.number <= job.args.get("times", 99):
        raise ValueError(job.args.get("text", f"attempt {attempt.number} failed"))
    if job.do == "dead":
        raise PermanentFailure(job.args.get("text", "it cannot be done"))
    if job.do == "later" and attempt.number <= job.args.get("times", 1):
        raise RetryLater(timedelta(seconds=job.args["after"]), "not yet", counts=job.args.get("counts", True))
    if job.do == "exit":
        os._exit(3)


def _wait(job: Task) -> None:
    """Until the test makes the file of ``args``: no machine is too slow or too fast for that."""
    while not Path(job.args["file"]).exists():
        time.sleep(0.02)


def do(job: Task, attempt: Attempt) -> Any:
    note(job, attempt, "begins")
    _raise(job, attempt)
    if job.do == "sleep":
        time.sleep(job.args["seconds"])
    if job.do == "wait":
        _wait(job)
    if job.do == "spin":
        end = time.monotonic() + job.args["seconds"]
        while time.monotonic() < end:
            pass
    if job.do == "report":
        attempt.report({"done": 1, "of": 2})
    note(job, attempt, "ends")
    return job.args.get("result", {"attempt": attempt.number, "of": attempt.of})


async def do_async(job: Task, attempt: Attempt) -> Any:
    note(job, attempt, "begins")
    _raise(job, attempt)
    if job.do == "sleep":
        await asyncio.sleep(job.args["seconds"])
    if job.do == "cancelled":
        raise asyncio.CancelledError
    note(job, attempt, "ends")
    return {"attempt": attempt.number}


def do_batch(items: Sequence[tuple[Task, Attempt]]) -> list[Any]:
    results: list[Any] = []
    for job, attempt in items:
        note(job, attempt, f"batch-of-{len(items)}")
        try:
            _raise(job, attempt)
            if job.do == "sleep":
                time.sleep(job.args["seconds"])
            if job.do == "wait":
                _wait(job)
        except Exception as error:
            results.append(error)
        else:
            results.append({"batch": len(items)})
    return results


@allow
def leave_a_note(job, connection, *details):
    """A callback: counts its calls in Redis."""
    connection.incr("noted")


_held: set[str] = set()


def admit(items: Sequence[tuple[Task, Attempt]]) -> list[Hold | None]:
    """Holds each job of this queue once, for half a second."""
    holds: list[Hold | None] = []
    for _job, attempt in items:
        seen = attempt.job_id in _held
        _held.add(attempt.job_id)
        holds.append(None if seen else Hold(datetime.now(UTC) + timedelta(seconds=0.5), "too early"))
    return holds


if patience := os.environ.get("TASKS_PATIENCE"):
    time_limits.PATIENCE = time_limits.STOP_PATIENCE = float(patience)

_HERE = "tests.support.tasks"
for _model, _more in (
    (Task, {"processor": f"{_HERE}:do", "concurrency": 50}),
    (CoroutineTask, {"processor": f"{_HERE}:do_async", "concurrency": 200}),
    (BatchTask, {"processor": f"{_HERE}:do", "batch": f"{_HERE}:do_batch", "batch_size": 100}),
    (ProcessTask, {"processor": f"{_HERE}:do", "concurrency": 1, "runs_in": "process"}),
    (HeldTask, {"processor": f"{_HERE}:do", "admit": f"{_HERE}:admit"}),
):
    register_queue(QueuePolicy(name=_model.queue, kind=_model.queue, model=_model, **_more))  # type: ignore[arg-type]
