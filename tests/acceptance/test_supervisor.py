"""``rqjobs worker --processes N``."""

from __future__ import annotations

import signal

import psutil

from rqjobs import enqueue, enqueue_many
from tests.support.tasks import Task, notes
from tests.support.workers import eventually

ENV = {"RQJOBS_IMPORT": "tests.support.tasks"}


def test_a_dead_worker_is_restarted_and_its_job_is_rescued_at_once(workers, redis, tmp_path, monkeypatch):
    monkeypatch.setenv("TASKS_LOG", str(tmp_path / "log"))
    supervisor = workers.start("tasks", "--processes", "2", RQJOBS_LEASE="600", **ENV)
    eventually(lambda: workers.logs().count("worker started") == 2)
    job = enqueue(Task(do="wait", mark="a", args={"file": str(tmp_path / "go")}))
    eventually(lambda: notes(tmp_path / "log"))
    psutil.Process(int(notes(tmp_path / "log")[0][4])).kill()
    eventually(lambda: len(notes(tmp_path / "log")) == 2)
    (tmp_path / "go").touch()
    eventually(lambda: job.get_status() == "finished")
    assert [words[1] for words in notes(tmp_path / "log") if words[2] == "begins"] == ["1", "2"]
    eventually(lambda: workers.logs().count("worker started") == 3)
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(60) == 0
    assert workers.logs().count("worker stopped") == 2


def test_max_jobs_recycles_processes_without_losing_a_job(workers, redis):
    enqueue_many([Task(mark=str(n)) for n in range(200)])
    supervisor = workers.start("tasks", "--processes", "2", "--max-jobs", "50", **ENV)
    eventually(lambda: redis.hget("rqjobs:totals:tasks", "completed") == b"200")
    assert supervisor.poll() is None
    assert workers.logs().count("worker started") >= 4


def test_a_burst_ends_and_a_wrong_setting_stops_everything(workers, redis):
    enqueue_many([Task(mark=str(n)) for n in range(20)])
    assert workers.start("tasks", "--processes", "2", "--burst", **ENV).wait(60) == 0
    assert redis.hget("rqjobs:totals:tasks", "completed") == b"20"
    assert workers.start("tasks", "--processes", "2", RQJOBS_LEASE="soon", **ENV).wait(60) == 2


def test_max_rss_ends_a_worker(workers, redis):
    assert workers.start("tasks", "--max-rss", "5", **ENV).wait(60) == 0
    assert "over --max-rss" in workers.logs()
