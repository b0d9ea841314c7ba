"""What a frozen or dead worker ran: written before any code of a job is called, and what follows from it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import pytest
import redis as redis_py
from pydantic import field_validator

from rqjobs import enqueue, enqueue_many
from rqjobs.attempt import Attempt
from rqjobs.broker import keys
from rqjobs.broker.rq_schema import run_script
from rqjobs.config.settings import get_settings
from rqjobs.jobs import JobModel
from rqjobs.policies import QueuePolicy, get_policy, lanes, register_queue
from rqjobs.worker import running_jobs, takeover
from rqjobs.worker.claimed_job import ClaimedJob
from rqjobs.worker.protocol import WorkerProtocol
from rqjobs.worker.rescue import rescue
from rqjobs.worker.run import run_worker
from rqjobs.worker.runners.processes import Child
from rqjobs.worker.running_jobs import RunningJob, read_running
from rqjobs.worker.watcher_client import LEASE_TOO_SHORT, frozen_after
from tests.support import tasks

HERE = "tests.integration.test_what_ran"

memory = -1
seen: dict[str, list[str]] = {}


def look(stage: str) -> None:
    """Notes what a watcher would find now."""
    if memory >= 0:
        seen.setdefault(stage, []).extend(job.label for job in read_running(memory) if job.running)


class Watched(JobModel):
    queue: ClassVar[str] = "watched"

    mark: str = ""

    @field_validator("mark")
    @classmethod
    def check(cls, mark: str) -> str:
        look("validation")
        return mark

    def label(self) -> str:
        return self.mark


def admit(items: Sequence[tuple[Watched, Attempt]]) -> list[None]:
    look("admit")
    return [None for _ in items]


def call(job: Watched, attempt: Attempt) -> None:
    look("function")


async def call_async(job: Watched, attempt: Attempt) -> None:
    look("function")


def call_batch(items: Sequence[tuple[Watched, Attempt]]) -> list[None]:
    look("function")
    return [None for _ in items]


@pytest.fixture
def shared(only_our_queues: None) -> Iterator[int]:
    global memory
    memory = running_jobs.share()
    seen.clear()
    yield memory
    os.close(memory)
    memory = -1
    running_jobs._shared.__init__()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("more", "stages"),
    [
        ({"processor": f"{HERE}:call"}, {"validation", "function"}),
        ({"processor": f"{HERE}:call_async"}, {"validation", "function"}),
        ({"processor": f"{HERE}:call", "batch": f"{HERE}:call_batch"}, {"validation", "function"}),
        ({"processor": f"{HERE}:call", "runs_in": "process"}, {"validation"}),
        ({"processor": f"{HERE}:call", "admit": f"{HERE}:admit"}, {"validation", "admit", "function"}),
    ],
    ids=["thread", "coroutine", "batch", "process", "admit"],
)
def test_a_job_is_recorded_before_any_code_of_it_is_called(
    redis: redis_py.Redis, shared: int, more: dict[str, Any], stages: set[str]
) -> None:
    register_queue(QueuePolicy(name="watched", kind="watched", model=Watched, **more))
    job = enqueue(Watched(mark="a"), attempts=1)
    seen.clear()
    run_worker(["watched"], burst=True)
    label = f"{job.id} (watched, {more['processor']})"
    assert {stage: set(labels) for stage, labels in seen.items()} == {stage: {label} for stage in stages}
    assert not [found for found in read_running(shared) if found.running]


def test_a_job_is_not_recorded_while_its_process_starts(
    redis: redis_py.Redis, shared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is killed then must not cost the job an attempt: three of them would make it dead."""

    def look_before(method: str) -> None:
        real = getattr(Child, method)

        def looked(child: Child, job: ClaimedJob) -> Any:
            look(method)
            return real(child, job)

        monkeypatch.setattr(Child, method, looked)

    look_before("wait_until_ready")
    look_before("run")
    monkeypatch.setenv("RQJOBS_IMPORT", "tests.support.tasks")
    processor = "tests.support.tasks:do"
    policy = QueuePolicy(
        name="processes", kind="processes", model=tasks.ProcessTask, processor=processor, runs_in="process"
    )
    register_queue(policy)
    job = enqueue(tasks.ProcessTask(), attempts=1)
    run_worker(["processes"], burst=True)
    assert job.get_status() == "finished"
    assert (seen["wait_until_ready"], seen["run"]) == ([], [f"{job.id} (processes, {processor})"])


def claimed(redis: redis_py.Redis, count: int) -> list[ClaimedJob]:
    """Jobs that a worker named ``victim`` runs."""
    enqueue_many([Watched() for _ in range(count)], attempts=3, backoff="fixed:1s")
    policy = get_policy("watched")
    script = WorkerProtocol("victim", 60, {"watched": policy}, get_settings(), lambda *_: None)
    words = script.reserve({"watched": count}, records=False, parks=False)
    return script.read_claims(run_script("reserve", redis, words[1:])).jobs


def begun(jobs: Sequence[ClaimedJob]) -> list[RunningJob]:
    """The same, through the shared memory."""
    running_jobs.place(max(1, len(jobs))).begin(jobs)
    return read_running(memory)


@pytest.fixture
def watched(redis: redis_py.Redis, shared: int) -> None:
    register_queue(QueuePolicy(name="watched", kind="watched", model=Watched, processor=f"{HERE}:call"))


def state(redis: redis_py.Redis, job: ClaimedJob) -> tuple[object, ...]:
    """Attempts left, deaths of workers, and whether it runs alone the next time."""
    return tuple(redis.hmget(f"rq:job:{job.job_id}", "retries_left", "worker_died", "suspect"))


def test_the_one_job_that_ran_in_a_frozen_worker_is_the_culprit(redis: redis_py.Redis, watched: None) -> None:
    culprit, *waiting = claimed(redis, 3)
    ran = takeover.note("victim", takeover.suspects(begun([culprit]), 0), frozen=True)
    assert [job.label for job in ran] == [f"{culprit.job_id} (watched, {HERE}:call)"]
    rescue(redis, lanes("watched"), get_settings(), dead="victim")
    assert state(redis, culprit) == (b"1", b"1", b"1")
    assert [state(redis, job) for job in waiting] == [(b"2", None, None)] * 2


def test_of_several_that_may_have_frozen_it_none_is_charged_and_each_runs_alone(
    redis: redis_py.Redis, watched: None
) -> None:
    jobs = claimed(redis, 4)
    takeover.note("victim", takeover.suspects(begun(jobs[:3]), 0), frozen=True)
    rescue(redis, lanes("watched"), get_settings(), dead="victim")
    assert [state(redis, job) for job in jobs] == [(b"2", b"1", b"1")] * 3 + [(b"2", None, None)]
    assert redis.hget(keys.totals("watched"), "retried") is None
    script = WorkerProtocol("next", 60, {"watched": get_policy("watched")}, get_settings(), lambda *_: None)
    words = script.reserve({"watched": 4}, records=False, parks=False)
    again = script.read_claims(run_script("reserve", redis, words[1:])).jobs
    assert {job.job_id for job in again if job.isolated} == {job.job_id for job in jobs[:3]}


def test_ended_jobs_are_not_suspects_while_another_job_runs(redis: redis_py.Redis, watched: None) -> None:
    honest, deadly, ended = claimed(redis, 3)
    place = running_jobs.place()
    place.begin([ended])
    place.end()
    found = begun([honest, deadly])
    assert [job.job_id for job in takeover.suspects(found, 0)] == [honest.job_id, deadly.job_id]
    assert {job.job_id for job in takeover.note("victim", found, frozen=False)} == {
        job.job_id for job in (honest, deadly, ended)
    }  # of a process that died: its outcome may be lost


def test_a_killed_worker_costs_a_job_that_it_only_checked_nothing(redis: redis_py.Redis, watched: None) -> None:
    checked, ran = claimed(redis, 2)
    running_jobs.place().begin([checked], "?")
    found = begun([ran])
    assert [job.job_id for job in takeover.suspects(found, 0)] == [checked.job_id, ran.job_id]  # of a frozen one
    assert [job.job_id for job in takeover.note("victim", found, frozen=False)] == [ran.job_id]
    rescue(redis, lanes("watched"), get_settings(), dead="victim")
    assert [state(redis, job) for job in (checked, ran)] == [(b"2", None, None), (b"1", b"1", b"1")]


def test_a_job_of_a_worker_that_disappeared_runs_alone_the_next_time(redis: redis_py.Redis, watched: None) -> None:
    """As when its container ends with it, or the lease is shorter than the watcher needs."""
    jobs = claimed(redis, 3)
    for job in jobs:
        redis.zadd(f"rq:wip:{job.lane}", {f"{job.job_id}:{job.execution}": 1})
    while redis.info("server")["uptime_in_seconds"] < 5:  # before that no worker counts as dead
        time.sleep(0.1)
    rescue(redis, lanes("watched"), get_settings())
    assert [state(redis, job) for job in jobs] == [(b"1", b"1", b"1")] * 3


def test_a_frozen_worker_is_ended_within_its_lease() -> None:
    """It was renewed up to a period and a second before the last sign of life, which is missed up to a second later."""
    for lease in range(12, 121):
        assert lease - (min(5, lease / 3) + 1) >= frozen_after(lease) + 1 + 3
    assert {frozen_after(lease) for lease in range(1, 12)} == {LEASE_TOO_SHORT}
