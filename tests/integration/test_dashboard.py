"""The dashboard's own pages: what they say, what they change."""

from __future__ import annotations

import html
import json
import re
import time
from datetime import timedelta

import pytest
import redis as redis_py
from click.testing import CliRunner
from flask.testing import FlaskClient
from rq.job import Job
from rq.serializers import JSONSerializer

from rqjobs import enqueue, enqueue_many
from rqjobs.broker.rq_schema import job_key, key
from rqjobs.cli import cli
from rqjobs.config.settings import use_settings
from rqjobs.database import get_engine
from rqjobs.database.schema import init_database
from rqjobs.database.webhook_deliveries import Delivery, write
from rqjobs.database.webhook_endpoints import set_enabled
from rqjobs.jobs import WebhookJob
from rqjobs.jobs.at_rest import decrypt_job
from rqjobs.monitoring.metrics import Sample, record
from rqjobs.monitoring.queue_health import queue_health
from rqjobs.security.masking import mask, unmask
from rqjobs.webhooks import add_endpoint
from tests.support.dashboard import (
    dead_jobs,
    eventually_text,
    start_bulk_requeue,
    webhook,
)
from tests.support.fleet import worker
from tests.support.hostile import kill


def test_metrics_hold_queues_and_histograms(client: FlaskClient, redis: redis_py.Redis) -> None:
    enqueue_many([webhook(n) for n in range(3)])
    record([Sample("webhooks:high", "done", 0.2, 0.01), Sample("webhooks", "dead", 7, None)], redis)
    text = client.get("/metrics").text
    assert 'rqjobs_queue_jobs{queue="webhooks",state="waiting"} 3.0' in text
    assert 'rqjobs_runs_total{outcome="dead",queue="webhooks"} 1.0' in text
    assert 'rqjobs_run_seconds_bucket{le="0.25",queue="webhooks"} 1.0' in text
    assert 'rqjobs_run_seconds_bucket{le="+Inf",queue="webhooks"} 2.0' in text
    assert 'rqjobs_run_seconds_sum{queue="webhooks"} 7.2' in text
    assert 'rqjobs_wait_seconds_count{queue="webhooks"} 1.0' in text


def test_unavailable_stores_are_reported(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:hunter2@127.0.0.1:1/x")
    monkeypatch.setenv("REDIS_URL", "redis://:hunter2@127.0.0.1:1/0")
    use_settings(None)
    for path in ("/webhooks/", "/exports/", "/analytics/", "/", "/live", "/dead/", "/rq/", "/metrics", "/health"):
        response = client.get(path)
        assert response.status_code == 503, path
        assert "hunter2" not in response.text
        assert "Traceback" not in response.text


def test_pause_and_resume(client: FlaskClient, token: str, redis: redis_py.Redis) -> None:
    client.post("/queues/email/pause", data={"csrf_token": token})
    assert {q.name for q in queue_health(redis) if q.paused} == {"email"}
    assert "email is paused" in client.get("/").text
    client.post("/queues/email/resume", data={"csrf_token": token})
    assert not any(q.paused for q in queue_health(redis))
    assert client.post("/queues/nonsense/pause", data={"csrf_token": token}).status_code == 404


def test_a_job_page_shows_every_attempt_and_no_secret(client: FlaskClient, redis: redis_py.Redis) -> None:
    job = enqueue(webhook())
    kill(job.id, job.origin, "ValueError: boom", redis)
    html = client.get(f"/jobs/{job.id}").text
    assert html.count("ValueError: boom</p>") == 3
    assert "wh_1" in html
    assert "hunter2" not in html
    assert "hunter2" not in client.get(f"/jobs/{job.id}/edit").text
    assert client.get("/jobs/unknown").status_code == 404


def test_an_edited_payload_is_checked_and_keeps_masked_values(
    client: FlaskClient, token: str, redis: redis_py.Redis
) -> None:
    job = enqueue(webhook())
    kill(job.id, job.origin, "ValueError: boom", redis)
    payload = {"webhook_id": "wh_1", "event": "qr.scanned", "url": "ftp://x", "payload": {}, "headers": {}}

    def save(document: object) -> int:
        text = document if isinstance(document, str) else json.dumps(document)
        form = {"csrf_token": token, "payload": text}
        return client.post(f"/jobs/{job.id}/edit", data=form).status_code

    assert save("{") == 422
    assert save("[" * 100_000) == 422
    assert save(f'{{"payload": {"9" * 1_000_000}}}') == 422
    assert save(payload) == 422
    assert save([]) == 422
    assert redis.hget(job_key(job.id), "status") == b"failed"
    assert save({**payload, "url": "https://new.example/in", "headers": {"X-API-Key": "(hidden)"}}) == 302
    fresh = Job.fetch(job.id, connection=redis, serializer=JSONSerializer)
    assert fresh.args[1]["url"] == "https://new.example/in"
    assert decrypt_job(WebhookJob.parse(fresh.args[1]), job.id).headers == {"X-API-Key": "hunter2"}
    assert fresh.get_status() == "queued"
    assert fresh.retries_left == 2
    assert save(payload) == 404  # not dead any more


def test_secrets_are_hidden_at_any_depth_and_put_back_only_where_it_is_clear() -> None:
    job = {
        "tokens": ["hunter2", {"n": "hunter2"}],
        "headers": {"Authorization": ["Bearer hunter2"], "X-Any": {"a": "hunter2"}},
        "password": {"value": "hunter2"},
        "headers_of_mail": ["shown"],
    }
    shown = mask(job)
    assert "hunter2" not in json.dumps(shown)
    assert shown["headers_of_mail"] == ["shown"]
    assert unmask(shown, job) == job
    with pytest.raises(ValueError, match="another length"):
        unmask({**shown, "tokens": ["(hidden)"]}, job)


def test_groups_are_by_queue_error_and_destination(client: FlaskClient, redis: redis_py.Redis) -> None:
    for number, job in enumerate(enqueue_many([webhook(n, "a.example") for n in range(4)])):
        kill(job.id, job.origin, f"ValueError: request 4711{number}00 took {number}.123 s", redis)
    for job in enqueue_many([webhook(n, "b.example") for n in range(2)]):
        kill(job.id, job.origin, "ValueError: request 12345 took 1.5 s", redis)
    html = client.get("/dead/").text
    rows = re.findall(r"<strong>(\d+)</strong>", html)
    assert rows == ["4", "2"]
    assert "a.example" in html
    assert "b.example" in html


def test_an_error_that_many_destinations_share_is_one_group_and_its_parts(
    client: FlaskClient, token: str, redis: redis_py.Redis
) -> None:
    jobs = enqueue_many([webhook(n, f"{'abcdef'[n % 6]}.example") for n in range(12)])
    for job in jobs:
        kill(job.id, job.origin, "ConnectionError: no route", redis)
    page = client.get("/dead/").text
    assert "6 destinations" in page
    assert re.findall(r"<strong>(\d+)</strong>", page) == ["12"]
    (group,) = set(re.findall(r'"(/dead/groups/[^"]+)"', page))
    parts = [part for part in re.findall(r'"(/dead/groups/[^"]+)"', client.get(group).text) if part != group]
    assert len(parts) == 6
    for address, number in ((group, 12), (parts[0], 2)):
        repair = client.post(address, data={"csrf_token": token, "title": "t", "mode": "dry-run"}).location
        eventually_text(client, repair, f"{number} jobs belong to this group")


def test_a_dry_run_counts_and_changes_nothing(client: FlaskClient, token: str, redis: redis_py.Redis) -> None:
    dead_jobs(redis, 7)
    page = start_bulk_requeue(client, token, mode="dry-run")
    eventually_text(client, page, "7 jobs belong to this group")
    assert redis.zcard(key("failed", "webhooks")) == 7


def test_a_canary_that_dies_leaves_the_others_alone(client: FlaskClient, token: str, redis: redis_py.Redis) -> None:
    dead_jobs(redis, 5)
    page = start_bulk_requeue(client, token, mode="requeue", canary="on", rate="100")
    eventually_text(client, page, "the canary runs")
    (canary,) = redis.lrange(key("queue", "webhooks"), 0, -1)
    kill(canary.decode(), "webhooks", "ValueError: boom", redis)
    eventually_text(client, page, "died again: ValueError: boom; the others were left alone")
    assert redis.zcard(key("failed", "webhooks")) == 5


def test_the_others_are_requeued_after_the_canary_is_done(
    client: FlaskClient, token: str, redis: redis_py.Redis
) -> None:
    dead_jobs(redis, 5)
    page = start_bulk_requeue(client, token, mode="requeue", canary="on", rate="100")
    eventually_text(client, page, "the canary runs")
    (canary,) = redis.lrange(key("queue", "webhooks"), 0, -1)
    redis.lpop(key("queue", "webhooks"))
    redis.hset(job_key(canary.decode()), "status", "finished")
    eventually_text(client, page, "5 jobs were requeued")
    assert redis.llen(key("queue", "webhooks")) == 4


def test_a_group_is_purged_completely(client: FlaskClient, token: str, redis: redis_py.Redis) -> None:
    jobs = dead_jobs(redis, 5)
    page = start_bulk_requeue(client, token, mode="purge")
    eventually_text(client, page, "5 jobs were deleted")
    assert not any(redis.exists(job_key(job.id), key("results", job.id)) for job in jobs)


def post(client: FlaskClient, token: str, path: str, **form: str) -> str:
    """What the page says after the change."""
    response = client.post(path, data={"csrf_token": token, **form}, follow_redirects=True)
    assert response.status_code == 200, response.text
    said = re.findall(r'<p class="flash" role="status">(.*?)</p>', response.text)
    assert said, response.text
    return html.unescape(said[0])


def test_a_delayed_job_is_run_now_and_a_waiting_one_deleted(
    client: FlaskClient, token: str, redis: redis_py.Redis
) -> None:
    waiting, delayed = enqueue(webhook(1)), enqueue(webhook(2), delay="1h")
    assert "Run now" in client.get(f"/jobs/{delayed.id}").text
    assert "Run now" not in client.get(f"/jobs/{waiting.id}").text
    assert post(client, token, f"/jobs/{delayed.id}/run-now") == "The job is due now."
    assert redis.zscore(key("scheduled", "webhooks"), delayed.id) <= time.time()
    assert "not delayed" in post(client, token, f"/jobs/{waiting.id}/run-now")
    for job in (waiting, delayed):
        assert "was deleted" in post(client, token, f"/jobs/{job.id}/delete")
        assert not redis.exists(job_key(job.id))
    assert not redis.exists(key("queue", "webhooks"), key("scheduled", "webhooks"))


def test_a_running_or_done_job_is_not_deleted(client: FlaskClient, token: str, redis: redis_py.Redis) -> None:
    job = enqueue(webhook())
    redis.lpop(key("queue", "webhooks"))
    for status in ("started", "finished"):
        redis.hset(job_key(job.id), "status", status)
        assert ">Delete<" not in client.get(f"/jobs/{job.id}").text
        assert "Nothing was done" in post(client, token, f"/jobs/{job.id}/delete")
        assert redis.exists(job_key(job.id))


def test_a_full_redis_is_reported(client: FlaskClient, token: str, redis: redis_py.Redis) -> None:
    redis.config_set("maxmemory", "1mb")
    try:
        assert "is used: raise maxmemory" in client.get("/live").text
        health = client.get("/health").json
        assert (health["healthy"], "is used: raise maxmemory" in health["redis"]) == (False, True)
        outcome = CliRunner().invoke(cli, ["health"], standalone_mode=False)
        assert (outcome.return_value, "Redis: " in outcome.output, "\nhealthy" in outcome.output) == (1, True, False)
        answer = client.post("/queues/email/pause", data={"csrf_token": token})
        assert answer.status_code == 503
        assert "Redis does not take it now" in answer.text
    finally:
        redis.config_set("maxmemory", "0")
    assert "is used: raise maxmemory" not in client.get("/live").text


def test_a_key_of_another_type_makes_its_queue_unhealthy(client: FlaskClient, redis: redis_py.Redis) -> None:
    redis.set(key("wip", "email"), "not RQ's")
    unreadable = "(unreadable) rq:wip:email: it should be a sorted set"
    for path, text in {"/live": unreadable, "/health": unreadable, "/metrics": 'healthy{queue="email"} 0.0'}.items():
        answer = client.get(path)
        assert answer.status_code == 200
        assert text in answer.text


def test_running_jobs_of_a_batch_are_not_shown_as_more_than_the_slots(
    client: FlaskClient, redis: redis_py.Redis
) -> None:
    worker(redis, rqjobs_slots='{"qr-analytics": 2}')
    for number, said in ((2, True), (3, False)):
        redis.zadd(key("wip", "qr-analytics"), {f"{n}:run": time.time() + 60 for n in range(number)})
        assert (f"{number}</a> <small>of 2</small>" in client.get("/live").text) is said


def test_a_queue_shows_its_problems_and_why_its_jobs_wait(client: FlaskClient, redis: redis_py.Redis) -> None:
    dead, again, late = enqueue_many([webhook(n) for n in range(3)])
    kill(dead.id, dead.origin, "the endpoint answered 404", redis, attempts=1)
    kill(again.id, again.origin, "ValueError: boom", redis, attempts=2)
    redis.zrem(key("failed", "webhooks"), again.id)
    redis.hset(job_key(again.id), mapping={"status": "scheduled", "retries_left": 1})
    redis.lrem(key("queue", "webhooks"), 1, late.id)
    redis.zadd(key("scheduled", "webhooks"), {again.id: time.time() + 90, late.id: time.time() - 300})
    page = client.get("/queues/webhooks").text
    assert "no worker listens" in page
    assert "delayed · 2" in page
    redis.zadd(key("wip", "email"), {"left-behind:run": time.time() + 60})
    assert "no worker listens" in client.get("/queues/email").text
    page = client.get("/queues/webhooks?state=dead").text
    assert "the endpoint answered 404" in page
    assert 'Attempts">1<' in page
    page = client.get("/queues/webhooks?state=delayed").text
    assert page.count("ValueError: boom") == 1
    assert "1 of 3" in page
    assert page.count("overdue") >= 1
    assert "in 1m" in page


def test_recently_dead_jobs_are_reported_at_the_top(client: FlaskClient, redis: redis_py.Redis) -> None:
    record([Sample("email", "done", 0.1, 0)] * 40 + [Sample("email", "dead", 0.1, 0)] * 9, redis)
    assert "died in the last hour" not in client.get("/").text
    record([Sample("email", "dead", 0.1, 0)], redis)
    assert "10 of 50 jobs died in the last hour" in client.get("/").text


def test_dead_letters_are_found_by_words(client: FlaskClient, redis: redis_py.Redis) -> None:
    jobs = enqueue_many([webhook(1, "a.example"), webhook(2, "b.example"), webhook(22, "b.example")])
    for job in jobs:
        kill(job.id, job.origin, "ValueError: boom", redis)
    for words, counts in (("wh_2", ["2"]), ("WH_22", ["1"]), ("a.EXAMPLE", ["1"]), (jobs[1].id, ["1"]), ("x y", [])):
        page = client.get("/dead/", query_string={"find": words}).text
        assert re.findall(r"<strong>(\d+)</strong>", page) == counts, words


def test_the_search_field_finds_jobs_deliveries_and_the_dead(client: FlaskClient, redis: redis_py.Redis) -> None:
    job = enqueue(webhook())
    log("old-delivery")
    for words, target in (
        (job.id, f"/jobs/{job.id}"),
        ("old-delivery", "/webhooks/deliveries/old-delivery"),
        ("ValueError: boom", "/dead/?find=ValueError:+boom"),
        ("", "/"),
    ):
        assert client.get("/jobs/", query_string={"find": words}).location == target
    assert client.get("/jobs/old-delivery").location == "/webhooks/deliveries/old-delivery"


def log(job_id: str, outcome: str = "dead", endpoint: str = "shop", ago: float = 60) -> None:
    """One attempt to deliver, in the log."""
    job = webhook().model_copy(update={"endpoint": endpoint}).dump()
    error = None if outcome == "done" else "the endpoint answered 500"
    at = int((time.time() - ago) * 1000)
    row = Delivery(job_id, endpoint, "qr.scanned", 1, at, 12.0, 500, outcome, error, "oops", json.dumps(job))
    write(get_engine(), [row], [], timedelta(days=5))


def test_a_delivery_shows_its_content_and_can_be_replayed(
    client: FlaskClient, token: str, redis: redis_py.Redis
) -> None:
    log("d1", "retry", ago=70)
    log("d1", "dead")
    page = client.get("/webhooks/deliveries/d1").text
    assert page.count("the endpoint answered 500") == 2
    assert "wh_1" in page
    assert "hunter2" not in page
    assert post(client, token, "/webhooks/deliveries/d1/replay") == "1 are sent again."
    assert redis.exists(job_key("d1"))
    assert "still under way" in post(client, token, "/webhooks/deliveries/d1/replay")
    assert client.get("/webhooks/deliveries/none").status_code == 404


def test_failed_deliveries_of_an_endpoint_can_be_replayed(
    client: FlaskClient, token: str, redis: redis_py.Redis
) -> None:
    log("missed")
    log("arrived", "done")
    log("long-ago", ago=7200)
    log("elsewhere", endpoint="other")
    form = {"name": "shop", "hours": "1", "pace": "50"}
    assert post(client, token, "/webhooks/endpoints/replay", **form, mode="dry-run") == "1 would be sent again."
    assert not redis.exists(job_key("missed"))
    assert post(client, token, "/webhooks/endpoints/replay", **form, mode="replay") == "1 are sent again."
    assert redis.exists(job_key("missed"))
    assert not redis.exists(job_key("arrived"), job_key("long-ago"), job_key("elsewhere"))


@pytest.mark.parametrize("path", ["/analytics/?code=%00", "/webhooks/?to=%00", "/webhooks/deliveries/%00"])
def test_nothing_is_found_by_a_nul(postgres_url: str, client: FlaskClient, token: str, path: str) -> None:
    init_database(get_engine())
    assert client.get(path).status_code == 404
    form = {"csrf_token": token, "name": "\0"}
    assert client.post("/webhooks/endpoints/disable", data=form).status_code == 404


@pytest.mark.parametrize(
    ("field", "value", "sent"), [("hours", "99999999", 1), ("hours", "-99999999", 0), ("pace", "nan", 1)]
)
def test_a_replay_by_a_number_beyond_sense_takes_the_nearest(
    client: FlaskClient, token: str, field: str, value: str, sent: int
) -> None:
    log("missed")
    form = {"name": "shop", "mode": "replay", field: value}
    assert post(client, token, "/webhooks/endpoints/replay", **form) == f"{sent} are sent again."


def test_deliveries_are_paged_and_endpoints_in_trouble_stand_first(client: FlaskClient, redis: redis_py.Redis) -> None:
    for number in range(60):
        log(f"d{number}", ago=60 - number)
    add_endpoint("aaa", "https://a.example/")
    add_endpoint("shop", "https://shop.example/")
    set_enabled(get_engine(), "shop", reason="gone")
    page, older = client.get("/webhooks/").text, client.get("/webhooks/?page=1").text
    assert page.index("shop.example") < page.index("a.example")
    seen = [re.findall(r"/webhooks/deliveries/(\w+)", text) for text in (page, older)]
    assert [len(ids) for ids in seen] == [50, 10]
    assert sorted(seen[0] + seen[1]) == sorted(f"d{number}" for number in range(60))
    assert "Older" in page
    assert "Older" not in older
    assert client.get(f"/webhooks/?page={10**18}").status_code == 200
    assert "<strong>60</strong> dead" in client.get("/webhooks/?to=shop").text


@pytest.mark.parametrize(
    ("meta", "shown"),
    [
        ({"progress": {"percent": 50}}, "<p>50 %</p>"),
        ({"progress": {"percent": "half", "step": "b"}}, "<p>step b, half %</p>"),
        ({"progress": {"rows": 5}}, "<p>5 rows</p>"),
        ({"progress": {"rows": 5, "of": 10, "percent": 50}}, "<p>5 of 10 rows, 50 %</p>"),
        ({"progress": [1]}, "progress"),
    ],
)
def test_any_progress_of_a_running_job_is_shown(
    client: FlaskClient, redis: redis_py.Redis, meta: dict[str, object], shown: str
) -> None:
    job = enqueue(webhook())
    redis.hset(job_key(job.id), mapping={"status": "started", "meta": json.dumps(meta)})
    answer = client.get(f"/jobs/{job.id}")
    assert answer.status_code == 200
    assert shown in answer.text


@pytest.mark.parametrize("words", ["connection refused", "10.0.0.5", "order.created", "a b", "nobody@example.com"])
def test_a_search_by_text_finds_dead_letters_by_their_reason(
    client: FlaskClient, redis: redis_py.Redis, words: str
) -> None:
    job = enqueue(webhook())
    kill(job.id, job.origin, f"ValueError: it failed: {words}!", redis)
    answer = client.get("/jobs/", query_string={"find": words}, follow_redirects=True)
    assert answer.status_code == 200
    assert "it failed" in answer.text
