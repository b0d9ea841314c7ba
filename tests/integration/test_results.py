"""Waiting for a job's result: what counts is what the job came to last."""

from __future__ import annotations

import threading
import time

import pytest
from rq.results import Result

from rqjobs import JobFailed, QRAnalyticsJob, ResultTimeout, enqueue, wait_for_result
from rqjobs.dead_letters.letters import requeue
from rqjobs.errors import JobNotFound

SCAN = QRAnalyticsJob(qr_code_id="q", event="scan", data={})


def die(redis, job):
    """As a worker has it: the failure and the status at once."""
    with redis.pipeline() as pipeline:
        Result.create_failure(job, 60, "ValueError: the first death", pipeline=pipeline)
        pipeline.hset(job.key, "status", "failed")
        pipeline.zadd(f"rq:failed:{job.origin}", {job.id: time.time() + 60})
        pipeline.lrem(f"rq:queue:{job.origin}", 0, job.id)
        pipeline.execute()


def test_a_job_that_was_requeued_is_waited_for(redis):
    job = enqueue(SCAN)
    die(redis, job)
    with pytest.raises(JobFailed, match="the first death"):
        wait_for_result(job)
    assert requeue([job.id], connection=redis)
    with pytest.raises(ResultTimeout, match="queued"):
        wait_for_result(job, "0s")

    def succeed():
        with redis.pipeline() as pipeline:
            Result.create(job, Result.Type.SUCCESSFUL, 60, return_value=7, pipeline=pipeline)
            pipeline.hset(job.key, "status", "finished")
            pipeline.execute()

    timer = threading.Timer(0.1, succeed)
    timer.start()
    assert wait_for_result(job, "60s") == 7
    timer.join()
    redis.delete(job.key)  # the newest are kept
    assert wait_for_result(job, "0s") == 7


def test_a_job_that_was_requeued_and_cancelled_did_not_die(redis):
    job = enqueue(SCAN)
    die(redis, job)
    requeue([job.id], connection=redis)
    job.cancel()
    with pytest.raises(JobFailed, match="it was canceled"):
        wait_for_result(job)


def test_a_stopped_job_raises_with_the_reason(redis):
    job = enqueue(SCAN)
    Result.create_failure(job, 60, "rqjobs.errors.PermanentFailure: stopped by command")
    redis.hset(job.key, "status", "stopped")
    with pytest.raises(JobFailed, match="stopped by command"):
        wait_for_result(job)


def test_a_deleted_job_reports_its_last_reason_or_is_unknown(redis):
    job = enqueue(SCAN)
    die(redis, job)
    redis.delete(job.key)
    with pytest.raises(JobFailed, match="the first death"):
        wait_for_result(job)
    redis.delete(f"rq:results:{job.id}")
    with pytest.raises(JobNotFound):
        wait_for_result(job)


@pytest.mark.parametrize("status", ["canceled", "stopped"])
def test_a_job_that_ended_without_a_result_is_not_waited_for(redis, status):
    job = enqueue(SCAN)
    redis.hset(job.key, "status", status)
    with pytest.raises(JobFailed, match=f"it was {status}"):
        wait_for_result(job, "300s")
