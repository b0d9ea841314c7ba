"""Exports in a real worker: progress in sight, stopped without a trace, the other queues undisturbed."""

from __future__ import annotations

from pathlib import Path

import pytest
from rq.command import send_stop_job_command

from rqjobs import DataExportJob, JobFailed, enqueue_data_export, wait_for_result
from rqjobs.broker.connection import get_connection
from rqjobs.broker.rq_schema import fetch_job
from tests.support import slow_source  # noqa: F401  # registers the source here as well
from tests.support.workers import eventually

IMPORT = {"RQJOBS_IMPORT": "tests.support.slow_source"}
EXPORTS = Path(".rqjobs/exports")


def job(count: int) -> DataExportJob:
    return DataExportJob(user_id="u", export_type="csv", data_type="slow", filters={"count": count})


def progress(job_id: str) -> dict:
    return fetch_job(job_id, get_connection()).meta.get("progress") or {}


def test_an_export_reports_its_progress_and_publishes_a_file(workers, redis):
    workers.start("data-export", **IMPORT)
    queued = enqueue_data_export(job(6000))
    assert eventually(lambda: progress(queued.id).get("rows", 0)) < 6000
    Path("go").touch()
    result = wait_for_result(queued, "60s")
    assert result["rows"] == 6000
    assert [path.name for path in EXPORTS.iterdir()] == [f"slow-{queued.id}.csv"]
    shown = workers.run("jobs", "show", queued.id, **IMPORT)
    assert "6,000 of 6,000 rows, 100.0 %" in shown.stdout


def test_a_stopped_export_leaves_nothing(workers, redis):
    workers.start("data-export", **IMPORT)
    queued = enqueue_data_export(job(10_000_000))
    eventually(lambda: progress(queued.id).get("rows", 0) > 0)
    assert any(path.name.endswith(".part") for path in EXPORTS.iterdir())
    send_stop_job_command(redis, queued.id)
    with pytest.raises(JobFailed, match="stopped by command"):
        wait_for_result(queued, "60s")
    assert list(EXPORTS.iterdir()) == []
