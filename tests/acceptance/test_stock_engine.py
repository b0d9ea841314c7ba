"""``rqjobs worker --engine rq`` and the stock ``rq worker``: real processes, RQ's own code, our policies."""

import json
import pickle
import time
import zlib

import pytest
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from rqjobs import JobFailed, enqueue, enqueue_many, queue_health, wait_for_result
from tests.support.processors import ProbeJob
from tests.support.workers import eventually

ENGINE = ("--engine", "rq")


def runs(path):
    return [json.loads(line) for line in path.read_text().rpartition("\n")[0].splitlines()] if path.exists() else []


def probe_health(workers):
    return next(queue for queue in workers.json("health")["queues"] if queue["name"] == "probe")


@pytest.mark.parametrize("engine", [(), ENGINE])
def test_a_worker_that_is_killed_does_not_count_for_long(workers, redis, engine):
    workers.start("probe", *engine)
    (record,) = eventually(lambda: redis.smembers("rq:workers"))
    for _ in range(6):  # at its birth, and after heartbeats
        assert 60 <= redis.ttl(record) <= 90
        time.sleep(0.5)


def test_a_failing_job_is_retried_after_2_and_4_seconds_and_its_history_kept(workers, tmp_path):
    log = tmp_path / "runs"
    workers.start("probe", *ENGINE)
    job = enqueue(ProbeJob(log=str(log), fail_times=2, value="v"))
    assert wait_for_result(job, "60s") == {"value": "v", "attempt": 3}
    times = [run["at"] for run in runs(log)]
    assert len(times) == 3
    assert times[1] - times[0] >= 2 - 1  # RQ's schedule knows whole seconds
    assert times[2] - times[1] >= 4 - 1
    shown = workers.json("jobs", "show", job.id)
    assert [entry["outcome"] for entry in shown["history"]] == ["retried", "retried", "done"]
    assert shown["history"][0]["error"] == "ConnectionError: attempt 1 of 3 was told to fail"
    assert all(entry["seconds"] >= 0 for entry in shown["history"])
    health = probe_health(workers)
    assert (health["name"], health["completed"], health["retried_total"]) == ("probe", 1, 2)


def test_dead_letters_are_explained_and_requeued_with_all_attempts(workers, tmp_path):
    log = tmp_path / "runs"
    workers.start("probe", *ENGINE)
    job = enqueue(ProbeJob(log=str(log), do="permanent"))
    with pytest.raises(JobFailed, match="told to die"):
        wait_for_result(job, "60s")
    assert len(runs(log)) == 1  # a permanent failure has no second attempt
    (letter,) = workers.json("failed", "list")
    assert (letter["job_id"], letter["reason"], letter["attempts"]) == (job.id, "told to die", 1)
    assert workers.json("failed", "requeue", job.id)["requeued"] == [job.id]
    eventually(lambda: len(runs(log)) == 2)
    eventually(lambda: workers.json("failed", "list"))
    assert workers.json("failed", "purge", "--all", "--dry-run") == {"purged": [job.id], "dry_run": True}
    assert workers.json("failed", "purge", "--all")["purged"] == [job.id]
    assert workers.json("failed", "list") == []


def test_burst_runs_the_waiting_jobs_and_ends(workers, tmp_path):
    log = tmp_path / "runs"
    enqueue_many([ProbeJob(log=str(log), value=i) for i in range(3)])
    enqueue(ProbeJob(log=str(log), value="high"), priority="high")
    enqueue(ProbeJob(log=str(log), value="due"), delay="1s")
    time.sleep(1.2)
    done = workers.run("worker", "probe", "--burst", *ENGINE)
    assert done.returncode == 0, done.stderr
    values = [run["value"] for run in runs(log)]
    assert values[0] == "high"
    assert sorted(map(str, values)) == ["0", "1", "2", "due", "high"]


def test_the_last_ones_are_kept_and_all_are_counted(workers, tmp_path, monkeypatch):
    limits = {"RQJOBS_KEEP_FAILED": "4", "RQJOBS_KEEP_COMPLETED": "3"}
    dead = enqueue_many([ProbeJob(log=str(tmp_path / "x"), do="permanent")] * 6)
    done = enqueue_many([ProbeJob(log=str(tmp_path / "x"))] * 5)
    assert workers.run("worker", "probe", "--burst", *ENGINE, **limits).returncode == 0
    health = probe_health(workers)
    assert (health["completed"], health["failed_total"], health["failed"]) == (5, 6, 4)
    kept = [letter["job_id"] for letter in workers.json("failed", "list")]
    assert kept == [job.id for job in reversed(dead[2:])]
    assert [job.id for job in done if Job.exists(job.id, connection=job.connection)] == [job.id for job in done[2:]]


def test_a_paused_queue_waits(workers, redis, tmp_path):
    log = tmp_path / "runs"
    assert workers.run("pause", "probe").returncode == 0
    enqueue(ProbeJob(log=str(log)))
    assert probe_health(workers)["reasons"]
    workers.start("probe", *ENGINE)
    eventually(lambda: redis.scard("rq:workers"))
    time.sleep(3)
    assert runs(log) == []
    assert workers.run("resume", "probe").returncode == 0
    eventually(lambda: runs(log))


def test_the_stock_rq_worker_runs_our_jobs(workers, redis, redis_url, tmp_path):
    log = tmp_path / "runs"
    workers.command(
        "worker", "probe", "--serializer", "json", "--with-scheduler", "--url", redis_url, program="rq"
    )  # fmt: skip
    good = enqueue(ProbeJob(log=str(log), fail_times=1, value=7))
    bad = enqueue(ProbeJob(log=str(log), do="permanent"))
    assert wait_for_result(good, "60s") == {"value": 7, "attempt": 2}
    with pytest.raises(JobFailed, match="told to die"):
        wait_for_result(bad, "60s")


def test_retry_later_waits_as_requested_and_may_count_no_attempt(workers, tmp_path):
    log = tmp_path / "runs"
    workers.start("probe", *ENGINE)
    job = enqueue(ProbeJob(log=str(log), do="later"), attempts=2)
    with pytest.raises(JobFailed, match="told to wait"):
        wait_for_result(job, "60s")
    assert [run["number"] for run in runs(log)] == [1, 1, 2]  # the first wait used up no attempt


def by_hand(redis, job_id, data):
    now = "2026-01-01T00:00:00.000000Z"
    fields = {"data": data, "origin": "probe", "status": "queued", "created_at": now, "enqueued_at": now}
    redis.hset(f"rq:job:{job_id}", mapping={**fields, "timeout": 10, "retries_left": 2, "retry_intervals": "[1, 1]"})
    redis.rpush("rq:queue:probe", job_id)


def test_a_job_with_an_unregistered_function_is_dead_without_a_run(workers, redis, tmp_path):
    class Hostile:
        def __reduce__(self):
            return (__import__("os").system, (f"touch {tmp_path}/pickled",))

    by_hand(redis, "os-system", json.dumps(["os.system", None, [f"touch {tmp_path}/ran"], {}]).encode())
    by_hand(redis, "pickled", zlib.compress(pickle.dumps(("os.system", None, (Hostile(),), {}))))
    by_hand(redis, "callback", json.dumps(["rqjobs.worker.entry.perform", None, ["probe", {}], {}]).encode())
    redis.hset("rq:job:callback", "failure_callback_name", "os.system")
    by_hand(redis, "no-such-queue", json.dumps(["rqjobs.worker.entry.perform", None, ["nope", {}], {}]).encode())
    done = workers.run("worker", "probe", "--burst", *ENGINE)
    assert done.returncode == 0, done.stderr
    reasons = {letter["job_id"]: letter["reason"] for letter in workers.json("failed", "list")}
    assert set(reasons) == {"os-system", "pickled", "callback", "no-such-queue"}
    assert all("refused" in reason for reason in reasons.values()), reasons
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "pickled").exists()


def test_an_allowed_plain_function_runs(workers, redis):
    job = Queue("probe", connection=redis, serializer=JSONSerializer).enqueue("tests.support.processors.plain", 21)
    workers.start("probe", *ENGINE)
    assert wait_for_result(job, "60s") == 42


def test_a_killed_work_horse_is_a_failure_with_its_reason(workers, tmp_path):
    job = enqueue(ProbeJob(log=str(tmp_path / "runs"), do="exit"), attempts=1)
    workers.start("probe", *ENGINE)
    with pytest.raises(JobFailed, match="terminated unexpectedly"):
        wait_for_result(job, "60s")


def test_health_reads_without_changing_anything(workers, redis):
    enqueue(ProbeJob(log="x"))
    redis.zadd("rq:wip:probe", {"gone:1": 5})
    before = {key: redis.dump(key) for key in redis.keys("*")}
    assert not next(queue for queue in queue_health() if queue.name == "probe").healthy
    assert {key: redis.dump(key) for key in redis.keys("*")} == before


def test_mistakes_end_in_one_plain_line_and_exit_2(workers):
    for command in (
        ("enqueue", "webhook", "{"),
        ("enqueue", "webhook", '{"a": 1}'),
        ("enqueue", "fax", "{}"),
        ("enqueue", "qr-analytics", '{"qrCodeId": "q", "event": "scan", "data": {}}', "--delay", "3600000"),
        ("enqueue", "webhook", "@/no/such/file"),
        ("jobs", "show", "nope"),
        ("failed", "requeue"),
        ("failed", "requeue", "nope"),
        ("pause", "nope"),
        ("worker", "nope"),
        ("health", "--nope"),
    ):
        done = workers.run(*command)
        assert (done.returncode, done.stdout) == (2, ""), command
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for command in (("health",), ("enqueue", "qr-analytics", '{"qrCodeId": "q", "event": "scan", "data": {}}')):
        done = workers.run(*command, REDIS_URL="redis://:hunter2@127.0.0.1:1/0")
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1
        assert "hunter2" not in done.stderr
