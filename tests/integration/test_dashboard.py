"""The dashboard over HTTP, without a browser: who is let in, what every route refuses, what the pages say."""

from __future__ import annotations

import json
import pickle
import re
import time
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest
import redis as redis_py
from flask import Flask
from flask.testing import FlaskClient
from rq import Queue
from rq.job import Job
from rq.rate_limit import RateLimit
from rq.serializers import JSONSerializer

from rqjobs import EmailJob, WebhookJob, enqueue, enqueue_many
from rqjobs.health import queue_health
from rqjobs.layout import job_key, key
from rqjobs.metrics import Sample, record
from rqjobs.settings import use_settings
from rqjobs.web import create_app
from tests.support.hostile import CORPUS, kill, plant

PASSWORD = "correct horse"


@pytest.fixture
def app(redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch) -> Flask:
    monkeypatch.setenv("DASHBOARD_PASSWORD", PASSWORD)
    use_settings(None)
    return create_app()


def sign_in(app: Flask, password: str = PASSWORD) -> FlaskClient:
    client = app.test_client()
    token = token_of(client.get("/login").text)
    client.post("/login", data={"username": "admin", "password": password, "csrf_token": token})
    return client


def token_of(html: str) -> str:
    match = re.search(r'name="csrf_token" value="([^"]+)"', html)
    assert match, html
    return match[1]


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return sign_in(app)


@pytest.fixture
def token(client: FlaskClient) -> str:
    return token_of(client.get("/").text)


def webhook(number: int = 1, host: str = "api.example.com") -> WebhookJob:
    return WebhookJob(
        webhook_id=f"wh_{number}", event="qr.scanned", url=f"https://{host}/in", payload={"n": number},
        headers={"X-API-Key": "hunter2"},
    )  # fmt: skip


def every_route(app: Flask) -> Iterator[tuple[str, str, str]]:
    """Method, address and endpoint of every route that there is."""
    samples = {"int": 0, "path": "x", "default": "x"}
    adapter = app.url_map.bind("localhost")
    for rule in app.url_map.iter_rules():
        values = {
            name: samples["int" if type(converter).__name__ == "IntegerConverter" else "default"]
            for name, converter in rule._converters.items()
        }
        values |= {"registry_name": "failed"} if "registry_name" in values else {}
        path = adapter.build(rule.endpoint, {**(rule.defaults or {}), **values})
        for method in (rule.methods or set()) - {"OPTIONS"}:
            yield method, path, rule.endpoint


OPEN = {"auth.login", "static"}


def snapshot(redis: redis_py.Redis) -> dict[bytes, bytes | None]:
    return {name: redis.dump(name) for name in redis.keys("rq*")}


def test_every_route_refuses_the_anonymous(app: Flask, redis: redis_py.Redis) -> None:
    enqueue(webhook())
    before = snapshot(redis)
    walked = 0
    for method, path, endpoint in every_route(app):
        if endpoint in OPEN:
            continue
        response = app.test_client().open(path, method=method, headers={"Accept": "text/html"})
        assert response.status_code in (302, 401), (method, path, response.status_code)
        if response.status_code == 302:
            assert response.location.startswith("/login"), path
        assert b"manychat-sync" not in response.data, path
        assert b"qr.scanned" not in response.data, path
        walked += 1
    assert walked > 40
    assert snapshot(redis) == before


def test_every_change_refuses_other_origins_and_missing_tokens(
    app: Flask, client: FlaskClient, token: str, redis: redis_py.Redis
) -> None:
    job = enqueue(webhook())
    kill(job.id, job.origin, "ValueError: x", redis)
    before = snapshot(redis)
    walked = 0
    for method, path, endpoint in every_route(app):
        if method in ("GET", "HEAD"):
            continue
        attempts = (
            {"data": {"csrf_token": token}, "headers": {"Origin": "https://evil.example"}},
            {"data": {"csrf_token": token}, "headers": {"Origin": "null"}},
            {"data": {"csrf_token": token}, "headers": {"Sec-Fetch-Site": "cross-site"}},
            {"data": {}, "headers": {}},
            {"data": {"csrf_token": "wrong"}, "headers": {}},
        )
        for given in attempts:
            assert client.open(path, method=method, **given).status_code == 403, (method, path, endpoint, given)
        walked += 1
    assert walked > 10
    assert snapshot(redis) == before


def test_get_changes_nothing_on_any_route(app: Flask, client: FlaskClient, redis: redis_py.Redis) -> None:
    ids = plant(redis)
    before = snapshot(redis)
    for method, path, _endpoint in every_route(app):
        if method == "GET":
            for job_id in (ids["dead"], ids["plain"]):
                client.get(path.replace("/x", f"/{job_id}")).close()
    after = snapshot(redis)
    assert after == before


def test_every_answer_has_the_headers(app: Flask, client: FlaskClient) -> None:
    for path in ("/", "/login", "/nothing", "/rq/", "/rq/0/data/queues.json", "/static/app.js", "/jobs/none"):
        with client.get(path) as response:
            headers = response.headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy, path
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"


class Elements(HTMLParser):
    """What the browser would make of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_pages_hold_no_inline_script_or_style_and_nothing_from_elsewhere(
    client: FlaskClient, redis: redis_py.Redis
) -> None:
    known = set(re.findall(r"[a-z0-9]+", "html head meta title link script body header div a img nav form input button "
        "main p section h1 h2 h3 span b small table thead tbody tr th td code svg path rect figure figcaption i strong "
        "time dl dt dd ol li details summary pre label textarea select option datalist progress br"))  # fmt: skip
    for path in pages(plant(redis), client):
        elements = Elements(client.get(path).text).found
        assert elements, path
        for tag, attributes in elements:
            assert tag in known, (path, tag)
            assert not any(name.startswith("on") or name in ("style", "srcdoc") for name in attributes), (path, tag)
            assert tag != "script" or (attributes["src"] or "").startswith("/static/"), path
            for name in ("src", "href", "action"):
                assert (attributes.get(name) or "/").startswith(("/", "?")), (path, tag, attributes)
                assert not (attributes.get(name) or "/").startswith("//"), (path, tag, attributes)


def pages(ids: dict[str, str], client: FlaskClient) -> list[str]:
    """Every page that shows something of the planted jobs."""
    group = re.findall(r'"(/dead/groups/[^"]+)"', client.get("/dead/").text)
    jobs = [ids[name] for name in ("dead", "waiting", "plain", "done")]
    registries = ("queued", "failed", "finished", "started", "rate_limited", "scheduled", "deferred", "canceled")
    return [
        "/", "/live", "/dead/", *group, f"/jobs/{ids['dead']}/edit",
        *(f"/jobs/{job_id}" for job_id in jobs), *(f"/jobs/{job_id}/live" for job_id in jobs),
        *(f"/queues/webhooks?state={state}" for state in ("waiting", "running", "delayed", "dead", "done")),
        "/webhooks/", "/exports/", "/analytics/", "/rq/",
        "/rq/0/view/workers", *(f"/rq/0/view/job/{job_id}" for job_id in jobs),
        *(f"/rq/0/view/jobs/webhooks/{registry}/8/asc/1" for registry in registries),
    ]  # fmt: skip


def test_hostile_texts_stay_texts_on_every_page(client: FlaskClient, redis: redis_py.Redis) -> None:
    ids = plant(redis)
    shown = 0
    for path in pages(ids, client):
        response = client.get(path)
        assert response.status_code == 200, (path, response.text[-500:])
        for text in CORPUS:
            if "<" in text:
                assert text not in response.text, (path, text)
        shown += "&lt;script&gt;" in response.text
    assert shown > 8


def test_json_answers_are_json_to_the_browser(client: FlaskClient, redis: redis_py.Redis) -> None:
    ids = plant(redis)
    for path in ("queues", "workers", "jobs/webhooks/failed/8/asc/1", *(f"job/{ids[x]}" for x in ("dead", "plain"))):
        response = client.get(f"/rq/0/data/{path}.json")
        assert response.status_code == 200, path
        assert response.mimetype == "application/json"


def test_login(app: Flask) -> None:
    client = app.test_client()
    token = token_of(client.get("/login").text)
    wrong = client.post("/login", data={"username": "admin", "password": "x", "csrf_token": token})
    assert wrong.status_code == 401
    assert client.get("/").status_code == 302
    # An address of another site is never followed.
    for target in ("https://evil.example", "//evil.example", "/\\evil.example", "\t//evil.example"):
        client = app.test_client()
        token = token_of(client.get("/login").text)
        form = {"username": "admin", "password": PASSWORD, "csrf_token": token, "next": target}
        assert client.post("/login", data=form).location == "/"
    client = app.test_client()
    assert client.get("/dead/?queue=email").location == "/login?next=/dead/?queue%3Demail"


def test_many_wrong_passwords_close_the_login_for_a_while(app: Flask) -> None:
    client = app.test_client()
    token = token_of(client.get("/login").text)
    for _ in range(10):
        assert client.post("/login", data={"password": "x", "csrf_token": token}).status_code == 401
    form = {"username": "admin", "password": PASSWORD, "csrf_token": token}
    assert client.post("/login", data=form).status_code == 429


def test_another_password_ends_every_session(app: Flask, client: FlaskClient) -> None:
    cookie = client.get_cookie("rqjobs_session")
    assert cookie is not None
    assert cookie.http_only
    other = create_app("another").test_client()
    other.set_cookie("rqjobs_session", cookie.value)
    assert other.get("/").status_code == 302


def test_the_cookie_is_secure_behind_https(app: Flask) -> None:
    plain = app.test_client().get("/login").headers["Set-Cookie"]
    behind = app.test_client().get("/login", headers={"X-Forwarded-Proto": "https"}).headers["Set-Cookie"]
    assert "Secure" not in plain
    assert "Secure" in behind
    assert "SameSite=Lax" in behind


def test_probes_take_basic_authentication_and_pages_do_not(app: Flask) -> None:
    client = app.test_client()
    for path in ("/metrics", "/health", "/ready"):
        assert client.get(path).status_code == 401
        assert client.get(path, auth=("admin", "wrong")).status_code == 401
        assert client.get(path, auth=("admin", PASSWORD)).status_code == 200
    assert client.get("/", auth=("admin", PASSWORD)).status_code == 302


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


def test_read_only_shows_everything_and_changes_nothing(redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASHBOARD_READ_ONLY", "true")
    use_settings(None)
    app = create_app(PASSWORD)
    client = sign_in(app)
    job = enqueue(webhook())
    kill(job.id, job.origin, "ValueError: x", redis)
    html = client.get(f"/jobs/{job.id}").text
    assert "Run again" not in html
    before = snapshot(redis)
    token = token_of(html)
    for method, path, endpoint in every_route(app):
        if method == "POST" and not endpoint.startswith("auth."):
            assert client.post(path, data={"csrf_token": token}).status_code == 403, path
    assert snapshot(redis) == before
    assert client.post("/logout", data={"csrf_token": token}).status_code == 302


def test_stores_that_are_away_are_said_so(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_an_edited_payload_is_checked_and_keeps_what_was_hidden(
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
    assert save(payload) == 422
    assert save([]) == 422
    assert redis.hget(job_key(job.id), "status") == b"failed"
    assert save({**payload, "url": "https://new.example/in", "headers": {"X-API-Key": "(hidden)"}}) == 302
    fresh = Job.fetch(job.id, connection=redis, serializer=JSONSerializer)
    assert fresh.args[1]["url"] == "https://new.example/in"
    assert fresh.args[1]["headers"] == {"X-API-Key": "hunter2"}
    assert fresh.get_status() == "queued"
    assert fresh.retries_left == 2
    assert save(payload) == 404  # not dead any more


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


def eventually_text(client: FlaskClient, path: str, text: str) -> str:
    deadline = time.monotonic() + 20
    while text not in (html := client.get(path).text):
        assert time.monotonic() < deadline, html
        time.sleep(0.1)
    return html


def start_repair(client: FlaskClient, token: str, **form: str) -> str:
    group = re.search(r'"(/dead/groups/[^"]+)"', client.get("/dead/").text)
    assert group
    response = client.post(group[1], data={"csrf_token": token, "title": "t", **form})
    assert response.status_code == 302
    return str(response.location)


def dead_jobs(redis: redis_py.Redis, number: int) -> list[Job]:
    jobs = enqueue_many([webhook(n) for n in range(number)])
    for job in jobs:
        kill(job.id, job.origin, "ValueError: boom", redis)
    return jobs


def test_a_dry_run_counts_and_changes_nothing(client: FlaskClient, token: str, redis: redis_py.Redis) -> None:
    dead_jobs(redis, 7)
    page = start_repair(client, token, mode="dry-run")
    eventually_text(client, page, "7 jobs belong to this group")
    assert redis.zcard(key("failed", "webhooks")) == 7


def test_a_canary_that_dies_leaves_the_others_alone(client: FlaskClient, token: str, redis: redis_py.Redis) -> None:
    dead_jobs(redis, 5)
    page = start_repair(client, token, mode="requeue", canary="on", rate="100")
    eventually_text(client, page, "the canary runs")
    (canary,) = redis.lrange(key("queue", "webhooks"), 0, -1)
    kill(canary.decode(), "webhooks", "ValueError: boom", redis)
    eventually_text(client, page, "died again; the others were left alone")
    assert redis.zcard(key("failed", "webhooks")) == 5


def test_a_canary_that_is_done_lets_the_others_follow(client: FlaskClient, token: str, redis: redis_py.Redis) -> None:
    dead_jobs(redis, 5)
    page = start_repair(client, token, mode="requeue", canary="on", rate="100")
    eventually_text(client, page, "the canary runs")
    (canary,) = redis.lrange(key("queue", "webhooks"), 0, -1)
    redis.lpop(key("queue", "webhooks"))
    redis.hset(job_key(canary.decode()), "status", "finished")
    eventually_text(client, page, "5 jobs were requeued")
    assert redis.llen(key("queue", "webhooks")) == 4


def test_a_group_is_purged_whole(client: FlaskClient, token: str, redis: redis_py.Redis) -> None:
    jobs = dead_jobs(redis, 5)
    page = start_repair(client, token, mode="purge")
    eventually_text(client, page, "5 jobs were deleted")
    assert not any(redis.exists(job_key(job.id), key("results", job.id)) for job in jobs)


# rq-dashboard: each test is a fault of version 0.9.0.


def rq_post(client: FlaskClient, token: str, path: str) -> int:
    return client.post(f"/rq/{path}", headers={"X-CSRF-Token": token}).status_code


def test_rq_requeue_is_no_get(client: FlaskClient, token: str, redis: redis_py.Redis) -> None:
    dead_jobs(redis, 2)
    assert client.get("/rq/requeue/webhooks").status_code == 405
    assert redis.zcard(key("failed", "webhooks")) == 2
    assert rq_post(client, token, "requeue/webhooks") == 200
    assert redis.llen(key("queue", "webhooks")) == 2


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("import builtins; builtins.exploded = True",)


def test_rq_never_unpickles(client: FlaskClient, redis: redis_py.Redis) -> None:
    import builtins

    bomb = pickle.dumps(Bomb())
    job = enqueue(webhook())
    fields = {"data": bomb, "meta": bomb, "result": bomb, "status": "started"}
    redis.hset(job_key(job.id), mapping=fields)
    redis.zadd(key("failed", "webhooks"), {job.id: 1})
    worker = key("worker", "w1")
    redis.sadd(key("workers"), worker)
    redis.hset(worker, mapping={"state": "busy", "current_job": job.id, "queues": "webhooks"})
    for path in (
        "/rq/0/data/workers.json", f"/rq/0/data/job/{job.id}.json", "/rq/0/data/jobs/webhooks/failed/8/asc/1.json",
        f"/rq/0/view/job/{job.id}", f"/jobs/{job.id}", "/dead/", "/", "/queues/webhooks",
    ):  # fmt: skip
        assert client.get(path).status_code == 200, path
    assert not hasattr(builtins, "exploded")


def test_rq_shows_workers_that_run_json_jobs(client: FlaskClient, redis: redis_py.Redis) -> None:
    job = enqueue(webhook())
    worker = key("worker", "w1")
    redis.sadd(key("workers"), worker)
    redis.hset(worker, mapping={"state": "busy", "current_job": job.id, "queues": "webhooks"})
    (found,) = client.get("/rq/0/data/workers.json").json["workers"]
    assert found["current_job"]["job_id"] == job.id


def test_rq_shows_jobs_with_dependencies(client: FlaskClient, redis: redis_py.Redis) -> None:
    queue = Queue("webhooks", connection=redis, serializer=JSONSerializer)
    first = queue.enqueue("x.y")
    second = queue.enqueue("x.z", depends_on=first)
    shown = client.get(f"/rq/0/data/job/{second.id}.json").json
    assert shown["depends_on"] == [first.id]
    assert shown["depends_on_status"] == ["active"]


def test_rq_knows_no_unknown_jobs_instances_or_registries(client: FlaskClient, token: str) -> None:
    for path in (
        "0/data/job/none.json", "0/view/job/none", "1/view/queues", "7/data/queues.json",
        "0/data/jobs/webhooks/nonsense/8/asc/1.json", "0/view/jobs/webhooks/nonsense/8/asc/1",
        "0/data/jobs/webhooks/failed/x/asc/1.json",
    ):  # fmt: skip
        assert client.get(f"/rq/{path}").status_code == 404, path
    assert rq_post(client, token, "job/none/delete") == 404
    assert rq_post(client, token, "job/none/requeue") == 409


def test_rq_shows_rate_limited_jobs(client: FlaskClient, redis: redis_py.Redis) -> None:
    queue = Queue("webhooks", connection=redis, serializer=JSONSerializer)
    limit = RateLimit("k", 1)
    jobs = [queue.enqueue("x.y", rate_limit=limit) for _ in range(3)]
    found = client.get("/rq/0/data/jobs/webhooks/rate_limited/8/asc/1.json").json
    assert {job["id"] for job in found["jobs"]} == {job.id for job in jobs[1:]}


@pytest.mark.parametrize("order", ["asc", "dsc"])
@pytest.mark.parametrize("registry", ["queued", "failed"])
def test_rq_pages_do_not_overlap(client: FlaskClient, redis: redis_py.Redis, order: str, registry: str) -> None:
    jobs = dead_jobs(redis, 19) if registry == "failed" else enqueue_many([webhook(n) for n in range(19)])
    pages = [
        [job["id"] for job in client.get(f"/rq/0/data/jobs/webhooks/{registry}/8/{order}/{page}.json").json["jobs"]]
        for page in (1, 2, 3, 4)
    ]
    assert [len(page) for page in pages] == [8, 8, 3, 0]
    seen = [job_id for page in pages for job_id in page]
    assert sorted(seen) == sorted(job.id for job in jobs)
    if registry == "queued":
        assert seen == [job.id for job in (jobs if order == "asc" else jobs[::-1])]


def test_rq_requeued_jobs_have_all_their_attempts(client: FlaskClient, token: str, redis: redis_py.Redis) -> None:
    (job,) = dead_jobs(redis, 1)
    assert rq_post(client, token, f"job/{job.id}/requeue") == 200
    assert redis.hget(job_key(job.id), "retries_left") == b"2"


def test_rq_empties_and_compacts(client: FlaskClient, token: str, redis: redis_py.Redis) -> None:
    jobs = enqueue_many([webhook(n) for n in range(9)])
    redis.delete(job_key(jobs[4].id))
    assert rq_post(client, token, "queue/webhooks/compact") == 200
    assert redis.llen(key("queue", "webhooks")) == 8
    assert rq_post(client, token, "queue/webhooks/queued/empty") == 200
    assert redis.llen(key("queue", "webhooks")) == 0
    assert not redis.exists(job_key(jobs[0].id))
    dead_jobs(redis, 3)
    assert rq_post(client, token, "queue/webhooks/failed/empty") == 200
    assert redis.zcard(key("failed", "webhooks")) == 0
    assert rq_post(client, token, "queue/webhooks/started/empty") == 409


def test_rq_deletes_a_job(client: FlaskClient, token: str, redis: redis_py.Redis) -> None:
    job = enqueue(EmailJob(to="a@example.com", subject="s", template="welcome", data={"name": "A"}))
    assert rq_post(client, token, f"job/{job.id}/delete") == 200
    assert redis.llen(key("queue", "email")) == 0
    assert not redis.exists(job_key(job.id))
