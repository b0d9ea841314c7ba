"""What apps test with: capture, run, drain, and the pytest plugin in a project of its own."""

import asyncio
import subprocess
import sys
from importlib.metadata import entry_points

import pytest
from sqlalchemy import select

from rqjobs import PermanentFailure, QRAnalyticsJob, WebhookJob, enqueue_many, enqueue_webhook, wait_for_result
from rqjobs.aio import await_result
from rqjobs.broker.job_writer import defer_with
from rqjobs.database import get_engine
from rqjobs.database.outbox import outbox
from rqjobs.database.schema import init_database
from rqjobs.errors import JobCaptured, JobNotFound
from rqjobs.testing import capture, drain, run
from tests.support.ownjobs import greet, make_thumbnail, write_down
from tests.support.processors import ProbeJob

HOOK = WebhookJob(webhook_id="w", event="booking.created", url="https://example.com", payload={})


def test_captured_jobs_need_no_redis(monkeypatch):
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    with capture() as captured:
        job = enqueue_webhook(HOOK, priority="high", attempts=5, delay="1h")
        make_thumbnail.enqueue({"image": "a.png"})
    found = captured.assert_enqueued(WebhookJob, event="booking.created", priority="high", count=1)
    assert (found.job, found.job_id, found.attempts, found.delay.total_seconds()) == (HOOK, job.id, 5, 3600)
    captured.assert_nothing(QRAnalyticsJob)
    assert len(captured) == 2
    with pytest.raises(AssertionError, match=r"expected a WebhookJob event='x', found 0; enqueued was:\n  webhooks:hi"):
        captured.assert_enqueued(WebhookJob, event="x")
    with pytest.raises(AssertionError, match="expected no JobModel"):
        captured.assert_nothing()
    with capture() as nothing:
        pass
    nothing.assert_nothing()
    with pytest.raises(AssertionError, match="nothing was enqueued"):
        nothing.assert_enqueued(WebhookJob)


def test_captured_jobs_run_inline():
    with capture() as captured:
        greet.enqueue({"name": "Ada"})
        write_down.enqueue({"file": "out.txt"})
        assert captured.run_all() == ["hello Ada", "written"]
        captured.assert_nothing()


def test_run_shows_the_processor_which_attempt_it_is(tmp_path):
    flaky = make_thumbnail.job({"image": "flaky.png"})
    with pytest.raises(ConnectionError):
        run(flaky)
    assert run(flaky, number=2)["attempt"] == 2
    with pytest.raises(PermanentFailure):
        run(ProbeJob(log=str(tmp_path / "x"), do="permanent"))


def test_drain_runs_everything_with_real_outcomes(redis, tmp_path, monkeypatch):
    monkeypatch.setenv("RQJOBS_IMPORT", "tests.support.ownjobs tests.support.processors")
    log = str(tmp_path / "runs")
    good, flaky, bad, late = enqueue_many(
        [
            ProbeJob(log=log, value=1),
            ProbeJob(log=log, fail_times=2),
            ProbeJob(log=log, do="permanent"),
            (ProbeJob(log=log), {"delay": "1h"}),
        ]
    )
    drained = drain("probe")
    assert [ran.outcome for ran in drained.runs if ran.job_id == flaky.id] == ["retried", "retried", "done"]
    assert {ran.job_id for ran in drained.done} == {good.id, flaky.id, late.id}
    assert [(ran.job_id, ran.error) for ran in drained.dead] == [(bad.id, "told to die")]
    assert wait_for_result(good)["value"] == 1
    assert drain().runs == []
    with pytest.raises(AssertionError, match="told to die"):
        drained.assert_no_failures()


def test_drain_can_leave_delayed_jobs(redis, tmp_path):
    enqueue_many([ProbeJob(log=str(tmp_path / "x"))], delay="1h")
    assert drain("probe", delayed=False).runs == []
    drained = drain("probe")
    drained.assert_no_failures()
    assert len(drained.done) == 1


TESTS = """
from rqjobs import EmailJob, enqueue_email, queue_health

MAIL = EmailJob(to="ada@example.com", subject="Hello", template="welcome", data={})


def test_capture(rqjobs_captured):
    enqueue_email(MAIL)
    rqjobs_captured.assert_enqueued(EmailJob, to="ada@example.com")


def test_redis(rqjobs_redis):
    enqueue_email(MAIL)
    assert queue_health()[2].waiting == 1


def test_it_is_empty_again(rqjobs_redis, rqjobs_drain):
    assert queue_health()[2].waiting == 0
    assert rqjobs_drain().runs == []


def test_inert():
    import os
    assert "REDIS_URL" not in os.environ
"""


def test_the_plugin_in_a_project_of_its_own(tmp_path):
    (tmp_path / "test_app.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    installed = "rqjobs" in entry_points(group="pytest11").names  # an old editable install knows no entry point
    plugin = [] if installed else ["-p", "rqjobs.testing.pytest_plugin"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio", *plugin, "test_app.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=180, check=False)
    assert "4 passed" in done.stdout, done.stdout + done.stderr
    assert not (tmp_path / ".rqjobs").exists()


def test_jobs_of_an_outbox_are_captured_and_not_written(monkeypatch, tmp_path):
    """A worker beside the tests looks into the same table: a row of a test's mail was sent."""
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    init_database(get_engine())
    with capture() as captured, get_engine().begin() as transaction:
        first = enqueue_webhook(HOOK, outbox=transaction)
        enqueue_many([HOOK, greet.job({"name": "Ada"})], outbox=transaction)
    assert captured.of(WebhookJob)[0].job_id == first.id
    assert len(captured) == 3
    with get_engine().connect() as connection:
        assert connection.execute(select(outbox)).all() == []


def test_drain_runs_jobs_of_the_outbox(redis, tmp_path, monkeypatch):
    monkeypatch.setenv("RQJOBS_IMPORT", "tests.support.ownjobs tests.support.processors")
    init_database(get_engine())
    with get_engine().begin() as transaction:
        enqueue_many([ProbeJob(log=str(tmp_path / "runs"), value=7)], outbox=transaction)
    drained = drain("probe")
    drained.assert_no_failures()
    assert [ran.result for ran in drained.done] == [{"value": 7, "attempt": 1}]


def test_a_drain_that_ran_nothing_is_a_failure(redis):
    drained = drain("webhooks")
    assert drained.runs == []
    with pytest.raises(AssertionError, match="nothing ran"):
        drained.assert_no_failures()


@pytest.mark.parametrize("by_id", [True, False])
def test_waiting_for_a_captured_job_raises_job_captured(monkeypatch, by_id):
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    with capture():
        job = enqueue_webhook(HOOK)
        wanted = job.id if by_id else job
        with pytest.raises(JobCaptured, match=r"was captured by rqjobs\.testing"):
            wait_for_result(wanted, "1s")
        with pytest.raises(JobNotFound, match="was captured"):
            asyncio.run(await_result(wanted, "1s"))


def test_jobs_that_wait_for_a_commit_are_named():
    held = []
    defer_with(lambda write: held.append(write) is None)
    try:
        with capture() as captured:
            jobs = enqueue_many([HOOK] * 3)
            with pytest.raises(AssertionError, match="nothing was enqueued; 3 jobs wait for a commit"):
                captured.assert_enqueued(WebhookJob)
            with pytest.raises(JobCaptured):
                wait_for_result(jobs[0], "1s")
            held[0]()
            assert captured.assert_enqueued(WebhookJob, count=3)
            assert not captured.waiting
    finally:
        defer_with(None)
