"""One rule says what an exception means: a worker's thread, a child process and the processor itself agree."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from rqjobs.errors import DependencyUnavailable, PermanentFailure, RetryLater
from rqjobs.policies import get_policy
from rqjobs.worker.claimed_job import ClaimedJob
from rqjobs.worker.failures import Failure, read_failure
from rqjobs.worker.outcomes import Dead, Retry, Unavailable
from rqjobs.worker.protocol import read_job
from tests.support.tasks import Task

STAMP = b"2026-01-01T00:00:00.000000Z"
DATA = b'["rqjobs.worker.entry.perform",null,["tasks",{}],{}]'
ERRORS = [
    ValueError("no"),
    PermanentFailure("never"),
    RetryLater(timedelta(seconds=7), "busy"),
    RetryLater(timedelta(seconds=7), "our own limit", counts=False),
    DependencyUnavailable("database", "it does not answer"),
    SystemExit(3),
]


def claimed(retries_left: int) -> ClaimedJob:
    row = (b"j", b"e", 1, b"", DATA, b"60", str(retries_left).encode(), b"[1, 2]", STAMP, b"", b"", STAMP)
    return read_job(row, Task.queue, get_policy(Task.queue), lambda *_: None)


@pytest.mark.parametrize("retries_left", [0, 1, 2])
@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_the_attempt_and_the_worker_agree_on_whether_the_job_is_dead(error: BaseException, retries_left: int) -> None:
    job = claimed(retries_left)
    _model, attempt = job.prepare()
    outcome = job.raised(error, 1.0)
    assert attempt.ends_with(error) == isinstance(outcome, Dead)


def test_failures_leave_the_right_number_of_attempts() -> None:
    retried = claimed(2).raised(ERRORS[0], 1.0)
    assert isinstance(retried, Retry)
    assert (retried.wait, retried.retries_left, retried.attempt) == (1.0, 1, 1)
    held_back = claimed(2).raised(ERRORS[3], 1.0)
    assert isinstance(held_back, Retry)
    assert (held_back.wait, held_back.retries_left) == (7.0, None)
    away = claimed(2).raised(ERRORS[4], 1.0)
    assert isinstance(away, Unavailable)
    assert (away.scope, away.dependency, away.stage) == ("", "database", "run")


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_failure_is_the_same_after_its_way_out_of_a_child_process(error: BaseException) -> None:
    there = read_failure(error, get_policy(Task.queue))
    here = Failure.from_json(json.loads(json.dumps(there.to_json())))
    assert here.to_json() == there.to_json()
    assert here.error.rstrip().endswith(str(error))
