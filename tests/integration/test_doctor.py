"""rqjobs doctor: each fault, planted in a healthy installation, is found; the healthy one has none."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pickle
import re
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
import redis as redis_py
from rq import Queue
from rq.serializers import JSONSerializer
from sqlalchemy import text

from rqjobs import WebhookJob, enqueue
from rqjobs.broker.job_actions import run_now
from rqjobs.broker.rq_schema import job_key, key
from rqjobs.config.settings import use_settings
from rqjobs.database import get_engine
from rqjobs.database.schema import VERSION_TABLE, init_database
from rqjobs.monitoring.doctor import jobs, online, server
from rqjobs.monitoring.doctor.checks import examine
from rqjobs.monitoring.queue_health import pause
from rqjobs.policies import policies
from tests.support.fleet import stamp, worker
from tests.support.loopback import Loopback
from tests.support.smtp import PASSWORD, USER, smtp_server

Plant = Callable[[redis_py.Redis, pytest.MonkeyPatch], object]


def webhook() -> WebhookJob:
    return WebhookJob(webhook_id="w", event="a.b", url="https://a.example/", payload={})


def faults() -> dict[str, str]:
    found = [finding for finding in examine() if finding.state == "fault"]
    assert all(finding.fix for finding in found)
    return {finding.name: finding.said for finding in found}


@pytest.fixture
def healthy(redis: redis_py.Redis) -> redis_py.Redis:
    worker(redis)
    enqueue(webhook())
    enqueue(webhook(), delay="1h")
    started = enqueue(webhook())
    redis.lrem(key("queue", "webhooks"), 1, started.id)
    redis.hset(job_key(started.id), "status", "started")
    redis.zadd(key("wip", "webhooks"), {f"{started.id}:e1": time.time() + 60})
    return redis


@contextlib.contextmanager
def configured(redis: redis_py.Redis, **values: str) -> Iterator[None]:
    before = {name: redis.config_get(name)[name] for name in (each.replace("_", "-") for each in values)}
    for name, value in values.items():
        redis.config_set(name.replace("_", "-"), value)
    try:
        yield
    finally:
        for name, value in before.items():
            redis.config_set(name, value)
        while redis.info("persistence")["aof_rewrite_in_progress"]:  # a server that writes its first AOF refuses to end
            time.sleep(0.01)


def test_a_healthy_installation_has_no_fault(healthy: redis_py.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, RQJOBS_HEALTH_HOST="0.0.0.0", RQJOBS_REDIS_SERVER="", RQJOBS_WEB_SERVICE_HOST="10.0.0.1")
    assert faults() == {}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("redis persistence", {"appendonly": "no", "save": ""}),
        ("redis persistence", {"appendonly": "no", "save": "3600 1"}),
        ("redis eviction", {"maxmemory_policy": "allkeys-lru"}),
        ("redis memory", {"maxmemory": "1500000"}),
    ],
)
def test_redis_would_not_keep_the_jobs(healthy: redis_py.Redis, name: str, values: dict[str, str]) -> None:
    with configured(healthy, **values):
        assert list(faults()) == [name]


class Old(redis_py.Redis):
    """A server that says it is an old one."""

    def info(self, section: str | None = None, *args: object, **kwargs: object) -> dict[str, object]:  # type: ignore[override]
        return {"redis_version": "5.0.14"}


def test_doctor_reports_an_old_redis() -> None:
    assert [finding.state for finding in server.version(Old())] == ["fault"]


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({"aof_enabled": 1, "aof_last_write_status": "err"}, "cannot write its append-only file"),
        ({"aof_enabled": 0, "rdb_last_bgsave_status": "err"}, "the last snapshot failed"),
    ],
)
def test_doctor_reports_a_full_disk_of_redis(
    info: dict[str, object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Old, "info", lambda *_args: info)
    assert [said in finding.said for finding in server.persistence(Old())] == [True]


def test_checks_that_a_managed_redis_forbids_are_skipped(
    healthy: redis_py.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    healthy.acl_setuser(
        "guest", enabled=True, nopass=True, keys=["*"], categories=["+@all"], commands=["-config", "-scan"]
    )
    url = os.environ["REDIS_URL"].replace("unix://", "unix://guest:x@")
    try:
        with configured(healthy, appendonly="no"):
            configure(monkeypatch, REDIS_URL=url)
            states = {finding.name: finding.state for finding in examine()}
    finally:
        healthy.acl_deluser("guest")
    skipped = {"redis persistence", "lost jobs", "serializer", "functions"}
    assert {name for name, state in states.items() if state == "skipped"} == skipped


def test_a_clock_that_is_wrong(healthy: redis_py.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    monkeypatch.setattr(server.time, "time", lambda: now() + 30)
    (finding,) = server.clock(healthy)
    assert "30 s" in finding.said


def test_doctor_reports_a_redis_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://:hunter2@127.0.0.1:1/0")
    use_settings(None)
    found = faults()
    assert list(found) == ["redis"]
    assert "hunter2" not in found["redis"]


def plant_no_worker(redis: redis_py.Redis, _: pytest.MonkeyPatch) -> None:
    redis.delete(key("workers"), key("worker", "w1"))


def plant_old_worker(redis: redis_py.Redis, _: pytest.MonkeyPatch) -> None:
    worker(redis, "w2", version="2.6.0")


def plant_other_rqjobs(redis: redis_py.Redis, _: pytest.MonkeyPatch) -> None:
    worker(redis, "w2", rqjobs_version="0.0.1")


def plant_unattended_queue(redis: redis_py.Redis, _: pytest.MonkeyPatch) -> None:
    plant_no_worker(redis, _)
    for policy in policies():
        redis.delete(key("workers", policy.name))
    worker(redis, queues="webhooks,email")


def plant_pause(redis: redis_py.Redis, _: pytest.MonkeyPatch) -> None:
    pause("webhooks", redis)


def plant_suspension(redis: redis_py.Redis, _: pytest.MonkeyPatch) -> None:
    redis.set(key("suspended"), 1)


def plant_overdue(redis: redis_py.Redis, _: pytest.MonkeyPatch) -> None:
    job = enqueue(webhook(), delay="1h")
    redis.zadd(key("scheduled", "webhooks"), {job.id: time.time() - 300})


def plant_lost(redis: redis_py.Redis, _: pytest.MonkeyPatch) -> None:
    job = enqueue(webhook())
    redis.lrem(key("queue", "webhooks"), 1, job.id)
    redis.hset(job_key(job.id), "enqueued_at", stamp(600))


def plant_lost_in_an_empty_queue(redis: redis_py.Redis, _: pytest.MonkeyPatch) -> None:
    job = enqueue(webhook(), priority="high")
    redis.delete(key("queue", "webhooks:high"))
    assert redis.exists(job_key(job.id))


def plant_lost_while_started(redis: redis_py.Redis, _: pytest.MonkeyPatch) -> None:
    redis.delete(key("wip", "webhooks"))


def plant_lost_while_scheduled(redis: redis_py.Redis, _: pytest.MonkeyPatch) -> None:
    redis.delete(key("scheduled", "webhooks"))


def plant_pickle(redis: redis_py.Redis, _: pytest.MonkeyPatch) -> None:
    Queue("webhooks", connection=redis).enqueue("os.getcwd")


def plant_raw_pickle(redis: redis_py.Redis, _: pytest.MonkeyPatch) -> None:
    job = enqueue(webhook())
    redis.hset(job_key(job.id), "data", zlib.compress(pickle.dumps(("os.getcwd", None, (), {}))))


def plant_function(redis: redis_py.Redis, _: pytest.MonkeyPatch) -> None:
    job = enqueue(webhook())
    redis.hset(job_key(job.id), "data", json.dumps(["os.system", None, ["true"], {}]))


def configure(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    use_settings(None)


def setting(**values: str) -> Plant:
    return lambda _redis, monkeypatch: configure(monkeypatch, **values)


def plant_no_s3(redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "s3fs" else find_spec(name))
    configure(monkeypatch, EXPORT_URL="s3://bucket/x", RQJOBS_SECRET_KEY="0123456789" * 4)


def plant_unknown_queue(redis: redis_py.Redis, _: pytest.MonkeyPatch) -> None:
    Queue("nobody-knows", connection=redis, serializer=JSONSerializer).enqueue("x.y")


def plant_file_for_folder(redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("taken").touch()
    configure(monkeypatch, EXPORT_URL="taken/exports")


@pytest.mark.parametrize(
    ("name", "plant"),
    [
        ("workers", plant_no_worker),
        ("worker versions", plant_old_worker),
        ("worker versions", plant_other_rqjobs),
        ("queues without a worker", plant_unattended_queue),
        ("paused queues", plant_pause),
        ("paused queues", plant_suspension),
        ("delayed jobs", plant_overdue),
        ("lost jobs", plant_lost),
        ("lost jobs", plant_lost_in_an_empty_queue),
        ("lost jobs", plant_lost_while_started),
        ("lost jobs", plant_lost_while_scheduled),
        ("serializer", plant_pickle),
        ("serializer", plant_raw_pickle),
        ("functions", plant_function),
        ("settings", setting(EMAIL_BACKEND="sendgrid", EMAIL_FROM="a@b.example")),
        ("settings", setting(EMAIL_BACKEND="resend", EMAIL_FROM="a@b.example")),
        ("settings", setting(EMAIL_BACKEND="smtp")),
        ("settings", setting(EMAIL_BACKEND="django.core.mail.backends.smtp.EmailBackend")),
        ("settings", setting(WEBHOOK_TIMEOUT="45s")),
        ("settings", setting(WEBHOOK_TIMOUT="45s")),
        ("settings", setting(RQJOBS_WEBHOOKS_TIMOUT="45s")),
        ("settings", setting(RQJOBS_LEASE="2s")),
        ("settings", setting(DASHBOARD_PASSWORD="short")),
        ("settings", setting(RQJOBS_SECRET_KEY="x" * 40)),
        ("settings", setting(RQJOBS_CRON_TOKEN="12341234" * 4)),
        ("settings", setting(WEBHOOK_ALLOW="localhost 0.0.0.0/0")),
        ("settings", setting(WEBHOOK_ALLOW="169.254.0.0/16")),
        ("settings", setting(WEBHOOK_ALLOW="::/0")),
        ("settings", setting(RQJOBS_EMAILS_ATTEMPTS="5")),
        ("settings", setting(RQJOBS_LEESE="60s")),
        ("settings", setting(EXPORT_URL="memory://exports")),
        ("settings", plant_no_s3),
        ("queues unknown here", plant_unknown_queue),
        ("folders", plant_file_for_folder),
        ("folders", setting(EMAIL_TEMPLATES="nowhere")),
    ],
)
def test_a_planted_fault_is_found_alone(
    healthy: redis_py.Redis, monkeypatch: pytest.MonkeyPatch, name: str, plant: Plant
) -> None:
    plant(healthy, monkeypatch)
    assert list(faults()) == [name]


@pytest.mark.parametrize(
    "plant", [plant_lost, plant_lost_in_an_empty_queue, plant_lost_while_started, plant_lost_while_scheduled]
)
def test_the_fix_for_a_lost_job_works(healthy: redis_py.Redis, monkeypatch: pytest.MonkeyPatch, plant: Plant) -> None:
    plant(healthy, monkeypatch)
    (job_id,) = re.findall(r"such as (\w+)", faults()["lost jobs"])
    assert run_now(job_id)
    assert faults() == {}
    assert not run_now(job_id) or healthy.zscore(key("scheduled", "webhooks"), job_id)


def test_every_job_is_checked_with_every_job(healthy: redis_py.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "SAMPLE", 2)
    plant_pickle(healthy, monkeypatch)
    plant_lost(healthy, monkeypatch)
    (said,) = (finding.said for finding in examine() if finding.name == "lost jobs")
    assert "jobs checked; every one: rqjobs doctor --every-job" in said
    found = {finding.name: finding.said for finding in examine(every_job=True) if finding.state == "fault"}
    assert list(found) == ["lost jobs", "serializer"]
    assert found["lost jobs"].startswith("1 of 5 jobs checked are in no list")


def test_a_database_without_tables(healthy: redis_py.Redis, postgres_url: str) -> None:
    assert "none of our tables" in faults()["database"]


@pytest.mark.parametrize(("version", "said"), [("0000", "is needed"), ("9999", "of the newer version 9999")])
def test_a_database_of_another_version(healthy: redis_py.Redis, version: str, said: str) -> None:
    init_database(get_engine())
    assert faults() == {}
    with get_engine().begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = :version"), {"version": version})
    assert said in faults()["database"]


def test_doctor_reports_a_database_that_does_not_answer(
    healthy: redis_py.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(monkeypatch, DATABASE_URL="postgresql://u:hunter2@127.0.0.1:1/x")
    found = faults()
    assert list(found) == ["database"]
    assert "hunter2" not in found["database"]


@pytest.mark.parametrize(("status", "state"), [(200, "ok"), (401, "fault"), (403, "fault"), (503, "fault")])
@pytest.mark.parametrize("name", ["SENDGRID", "RESEND", "MANYCHAT"])
def test_credentials_are_tried_online(monkeypatch: pytest.MonkeyPatch, name: str, status: int, state: str) -> None:
    ask, secret, path = {
        "SENDGRID": (online.mail, "SENDGRID_API_KEY", "/v3/scopes"),
        "RESEND": (online.mail, "RESEND_API_KEY", "/domains"),
        "MANYCHAT": (online.manychat, "MANYCHAT_API_TOKEN", "/fb/page/getInfo"),
    }[name]
    backend = {} if name == "MANYCHAT" else {"EMAIL_BACKEND": name.lower()}
    with Loopback(status) as provider:
        configure(monkeypatch, **{secret: "123:hunter2", f"{name}_API_URL": provider.url}, **backend)
        (finding,) = ask()
    assert finding.state == state
    assert "hunter2" not in finding.said
    assert [(asked.path, asked.headers["Authorization"]) for asked in provider.asked] == [(path, "Bearer 123:hunter2")]
    (finding,) = ask()  # nobody listens there any more
    assert (finding.state, "cannot be reached" in finding.said) == ("fault", True)


@pytest.mark.parametrize(("password", "state"), [(PASSWORD, "ok"), ("hunter2", "fault")])
def test_the_mail_server_is_tried_online(
    healthy: redis_py.Redis, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, password: str, state: str
) -> None:
    with smtp_server(tmp_path, auth=True) as running:
        url = f"smtp://{USER}:{quote(password, safe='')}@localhost:{running.port}?ca={running.ca_file}"
        configure(monkeypatch, EMAIL_BACKEND="smtp", EMAIL_FROM="a@b.example", SMTP_URL=url)
        names = {finding.name: finding for finding in examine(ask_providers=True)}
    assert names["mail provider"].state == state
    assert names["manychat"].state == "skipped"
    assert "hunter2" not in names["mail provider"].said
    (finding,) = online.mail()
    assert (finding.state, "cannot be used" in finding.said) == ("fault", True)


def test_no_provider_is_queried_without_credentials(healthy: redis_py.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [finding.state for finding in online.mail()] == ["skipped"]
    configure(monkeypatch, EMAIL_BACKEND="sendgrid", EMAIL_FROM="a@b.example")
    assert [finding.said for finding in online.mail()] == ["SENDGRID_API_KEY is not set"]


def test_a_busy_queue_is_examined_fast(healthy: redis_py.Redis) -> None:
    for _ in range(4):
        from rqjobs import enqueue_many

        enqueue_many([webhook() for _ in range(2500)])
    began = time.perf_counter()
    assert faults() == {}
    assert time.perf_counter() - began < timedelta(seconds=30).total_seconds()
