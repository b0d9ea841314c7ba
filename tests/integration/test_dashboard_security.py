"""The dashboard: who is let in, what every route refuses, and that nothing a job says is obeyed."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest
import redis as redis_py
from flask import Flask
from flask.testing import FlaskClient

from rqjobs import enqueue
from rqjobs.config.settings import use_settings
from rqjobs.dead_letters.index import sync
from rqjobs.policies import lanes_of
from rqjobs.web import create_app
from tests.support.dashboard import (
    PASSWORD,
    every_route,
    pages,
    sign_in,
    snapshot,
    token_of,
    webhook,
)
from tests.support.hostile import CORPUS, kill, plant

OPEN = {"auth.login", "static"}


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
    sync(lanes_of(None), redis)  # as workers do, who index each dead letter
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
        "time dl dt dd ol ul li details summary pre label textarea select option datalist progress br"))  # fmt: skip
    for path in pages(plant(redis), client.get("/dead/").text):
        elements = Elements(client.get(path).text).found
        assert elements, path
        for tag, attributes in elements:
            assert tag in known, (path, tag)
            assert not any(name.startswith("on") or name in ("style", "srcdoc") for name in attributes), (path, tag)
            assert tag != "script" or (attributes["src"] or "").startswith("/static/"), path
            for name in ("src", "href", "action"):
                assert (attributes.get(name) or "/").startswith(("/", "?")), (path, tag, attributes)
                assert not (attributes.get(name) or "/").startswith("//"), (path, tag, attributes)


def test_every_page_is_among_them(app: Flask, client: FlaskClient, redis: redis_py.Redis) -> None:
    adapter = app.url_map.bind("localhost")
    covered = {adapter.match(urlsplit(path).path)[0] for path in pages(plant(redis), client.get("/dead/").text)}
    shows_no_page = {
        "static", "rq_dashboard.static", "auth.login", "jobs.find", "analytics.as_json", "probes.metrics",
        "probes.health", "probes.ready", "rq_dashboard.list_instances", "rq_dashboard.list_queues",
        "rq_dashboard.list_workers", "rq_dashboard.list_jobs", "rq_dashboard.job_info", "rq_dashboard.favicon",
    }  # fmt: skip
    assert {endpoint for method, _, endpoint in every_route(app) if method == "GET"} - shows_no_page == covered


def test_hostile_texts_stay_texts_on_every_page(client: FlaskClient, redis: redis_py.Redis) -> None:
    ids = plant(redis)
    shown = 0
    for path in pages(ids, client.get("/dead/").text):
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
    assert client.get("/ready", auth=("admin", PASSWORD)).status_code == 200
    elsewhere = {"REMOTE_ADDR": "192.0.2.7"}
    assert client.post("/login", data=form, environ_overrides=elsewhere).status_code == 302


def test_a_scraper_with_an_old_password_does_not_lock_users_out(app: Flask) -> None:
    for _ in range(20):
        assert app.test_client().get("/metrics", auth=("admin", "old")).status_code == 401
    assert app.test_client().get("/metrics", auth=("admin", PASSWORD)).status_code == 401
    assert sign_in(app).get("/").status_code == 200


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
