"""What the engine promises, at full size and on an idle machine: run as ``make slow``, never beside other tests."""

from __future__ import annotations

import os
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from rqjobs import (
    DataExportJob,
    EmailJob,
    WebhookJob,
    enqueue,
    enqueue_data_export,
    enqueue_email,
    enqueue_many,
    wait_for_result,
)
from rqjobs.broker.connection import connect
from rqjobs.broker.embedded import ensure_server, stop_server
from rqjobs.broker.rq_schema import fetch_job
from rqjobs.database import get_engine
from rqjobs.testing.sandbox.mail import MailAPI
from tests.support import apptables
from tests.support.receiver import Answer, Receiver
from tests.support.tasks import CoroutineTask, Task, notes
from tests.support.workers import eventually

pytestmark = pytest.mark.slow


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setenv("TASKS_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


def begin(workers, *args, **env):
    process = workers.start(*args, **{"RQJOBS_IMPORT": "tests.support.tasks", **env})
    eventually(lambda: "worker started" in workers.logs())
    return process


def starts(log):
    return {words[0]: float(words[3]) for words in notes(log) if words[2] == "begins"}


@pytest.mark.parametrize("model", [Task, CoroutineTask])
def test_waits_are_exact_to_a_tenth_of_a_second(workers, redis, log, model):
    begin(workers, model.queue)
    due = {}
    for seconds in (0.5, 2, 4, 8):
        for n in range(5):
            time.sleep(0.02)
            due[f"{seconds}-{n}"] = time.time() + seconds
            enqueue(model(mark=f"{seconds}-{n}"), delay=f"{seconds}s")
    eventually(lambda: len(starts(log)) == len(due))
    late = {mark: began - due[mark] for mark, began in starts(log).items()}
    print(f"{model.queue}: {min(late.values()) * 1000:.1f} to {max(late.values()) * 1000:.1f} ms late")
    assert all(0 <= seconds < 0.1 for seconds in late.values()), late


@pytest.mark.parametrize("model", [Task, CoroutineTask])
def test_ten_thousand_due_in_one_second_start_within_two(workers, redis, log, model):
    begin(workers, model.queue)
    due = time.time() + 5
    enqueue_many([model(mark=str(n)) for n in range(10_000)], delay=timedelta(seconds=due - time.time()))
    assert time.time() < due
    eventually(lambda: redis.hget(f"rqjobs:totals:{model.queue}", "completed") == b"10000")
    began = starts(log)
    print(f"{model.queue}: the last of 10,000 began {max(began.values()) - due:.2f} s after they were due")
    assert len(began) == 10_000
    assert due <= min(began.values())
    assert max(began.values()) < due + 2


def test_twenty_seconds_without_redis_under_load(workers, tmp_path, log, monkeypatch, settings):
    folder = tmp_path / "redis"
    monkeypatch.setenv("REDIS_URL", f"unix://{ensure_server(folder)}")
    redis = connect()
    processes = [begin(workers, "tasks", "coroutines") for _ in range(2)]
    jobs = [model(do="sleep", mark=f"{model.queue}{n}", args={"seconds": 0.5}) for n in range(2000)
            for model in (Task, CoroutineTask)]  # fmt: skip
    enqueue_many(jobs, connection=redis)
    eventually(lambda: len(starts(log)) > 500)
    stop_server(folder)
    time.sleep(20)
    ensure_server(folder)

    def completed():
        return [redis.hget(f"rqjobs:totals:{name}", "completed") for name in ("tasks", "coroutines")]

    eventually(lambda: completed() == [b"2000", b"2000"], 120)
    ran = Counter(words[0] for words in notes(log) if words[2] == "ends")
    assert set(ran) == {job.mark for job in jobs}
    assert set(ran.values()) == {1}
    assert [process.poll() for process in processes] == [None, None]
    assert workers.logs().count("redis is back") == 2
    redis.close()
    workers.stop()
    stop_server(folder)


def test_a_million_webhooks_wait_and_a_mail_and_an_export_start_within_a_second(workers, redis, configure):
    receiver = Receiver(lambda request: Answer(delay=0.1)).start()
    apptables.make(get_engine())
    apptables.add_contacts(get_engine(), 1000)
    hook = WebhookJob(webhook_id="wh", event="qr.scanned", url=receiver.url(), payload={"id": 1})
    for _ in range(50):
        enqueue_many([hook] * 20_000)
    with MailAPI() as api:
        configure(EMAIL_BACKEND="resend", RESEND_API_URL=api.url, RESEND_API_KEY=api.key, WEBHOOK_ALLOW="127.0.0.1")
        begin(workers, RQJOBS_IMPORT="")
        eventually(lambda: len(receiver.requests) > 1000)
        took = {}
        for n in range(5):
            mail = EmailJob(to="a@x.example", subject="s", template="welcome", data={})
            export = DataExportJob(user_id="user_1", export_type="csv", data_type="contacts")
            now = time.time()
            jobs = {"mail": enqueue_email(mail), "export": enqueue_data_export(export)}
            for kind, job in jobs.items():
                wait_for_result(job, "30s")
                job = fetch_job(job.id, redis)  # noqa: PLW2901
                took[kind, n] = job.started_at.timestamp() - now, job.ended_at.timestamp() - now
        assert len(api.sent) == 5
    print("\n".join(f"{kind} {n}: began after {a:.3f} s, done after {b:.3f}" for (kind, n), (a, b) in took.items()))
    assert redis.llen("rq:queue:webhooks") > 900_000
    assert max(began for began, _ in took.values()) < 1
    workers.stop()
    receiver.stop()


@pytest.mark.parametrize("options", [(), ("--processes", "2")], ids=["one", "supervised"])
def test_idle_for_a_minute(workers, redis, options):
    """Under one hundredth of a core for each process: the worker itself, and the supervisor."""
    process = begin(workers, *options, RQJOBS_IMPORT="")
    eventually(lambda: workers.logs().count("worker started") == (2 if options else 1))
    time.sleep(5)  # the first housekeeping is 10 s after the start, and belongs to it
    pids = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    before = {pid: ticks(pid) for pid in pids}
    time.sleep(60)
    used = {pid: (ticks(pid) - before[pid]) / os.sysconf("SC_CLK_TCK") / 60 for pid in pids}
    print(" ".join(f"{share:.2%}" for share in used.values()))
    assert len(pids) == (3 if options else 1)
    assert max(used.values()) < 0.01


def ticks(pid: int) -> int:
    """The processor time that a process has used, in user and in kernel mode (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
