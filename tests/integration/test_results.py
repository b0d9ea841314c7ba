"""Waiting for a job's result, where what becomes of the job comes between two looks."""

from __future__ import annotations

import pytest
from rq.results import Result

from rqjobs import JobFailed, QRAnalyticsJob, enqueue, results, wait_for_result

SCAN = QRAnalyticsJob(qr_code_id="q", event="scan", data={})


def test_a_job_that_is_stopped_after_its_results_were_looked_at_says_why(redis, monkeypatch):
    job = enqueue(SCAN)
    read, looks = results._read, []

    def stopped_meanwhile(*args):
        found = read(*args)
        if not looks:
            Result.create_failure(job, 60, "rqjobs.errors.PermanentFailure: stopped by command")
            redis.hset(job.key, "status", "stopped")
        looks.append(found)
        return found

    monkeypatch.setattr(results, "_read", stopped_meanwhile)
    with pytest.raises(JobFailed, match="stopped by command"):
        wait_for_result(job)
    assert looks[0] == []


@pytest.mark.parametrize("status", ["canceled", "stopped"])
def test_a_job_that_ended_without_a_result_is_not_waited_for(redis, status):
    job = enqueue(SCAN)
    redis.hset(job.key, "status", status)
    with pytest.raises(JobFailed, match=f"it was {status}"):
        wait_for_result(job, "300s")
