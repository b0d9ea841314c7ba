"""The dashboard over HTTP, without a browser."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from urllib.parse import quote

import redis as redis_py
from flask import Flask
from flask.testing import FlaskClient
from rq.job import Job

from rqjobs import WebhookJob, enqueue_many
from tests.support.hostile import CORPUS, kill

PASSWORD = "correct horse"


def sign_in(app: Flask, password: str = PASSWORD) -> FlaskClient:
    client = app.test_client()
    token = token_of(client.get("/login").text)
    client.post("/login", data={"username": "admin", "password": password, "csrf_token": token})
    return client


def token_of(html: str) -> str:
    match = re.search(r'name="csrf_token" value="([^"]+)"', html)
    assert match, html
    return match[1]


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


def snapshot(redis: redis_py.Redis) -> dict[bytes, bytes | None]:
    return {name: redis.dump(name) for name in redis.keys("rq*")}


def dead_jobs(redis: redis_py.Redis, number: int) -> list[Job]:
    jobs = enqueue_many([webhook(n) for n in range(number)])
    for job in jobs:
        kill(job.id, job.origin, "ValueError: boom", redis)
    return jobs


def eventually_text(client: FlaskClient, path: str, text: str) -> str:
    deadline = time.monotonic() + 60
    while text not in (html := client.get(path).text):
        assert time.monotonic() < deadline, html
        time.sleep(0.1)
    return html


def start_bulk_requeue(client: FlaskClient, token: str, **form: str) -> str:
    group = re.search(r'"(/dead/groups/[^"]+)"', client.get("/dead/").text)
    assert group
    response = client.post(group[1], data={"csrf_token": token, "title": "t", **form})
    assert response.status_code == 302
    return str(response.location)


def pages(ids: dict[str, str], dead: str) -> list[str]:
    """Every page that shows something of the planted jobs; ``dead`` is the page of the dead letters."""
    group = re.findall(r'"(/dead/groups/[^"]+)"', dead)
    jobs = [ids[name] for name in ("dead", "waiting", "plain", "done")]
    registries = ("queued", "failed", "finished", "started", "rate_limited", "scheduled", "deferred", "canceled")
    return [
        "/", "/live", "/dead/", *group, f"/jobs/{ids['dead']}/edit",
        *(f"/jobs/{job_id}" for job_id in jobs), *(f"/jobs/{job_id}/live" for job_id in jobs),
        *(f"/queues/webhooks?state={state}" for state in ("waiting", "running", "delayed", "dead", "done")),
        f"/dead/?find={quote(CORPUS[0])}", f"/dead/repairs/{ids['repair']}", f"/dead/repairs/{ids['repair']}/live",
        "/webhooks/", f"/webhooks/?to={quote(CORPUS[1])}", "/webhooks/deliveries/j1",
        "/batches/", f"/batches/{ids['batch']}", f"/batches/{ids['batch']}/live",
        "/exports/", f"/exports/?user={quote(CORPUS[0])}", "/analytics/", f"/analytics/?code={quote(ids['code'])}",
        f"/analytics/?user={quote(ids['code'])}",
        "/rq/",
        "/rq/0/view/workers", *(f"/rq/0/view/job/{job_id}" for job_id in jobs),
        *(f"/rq/0/view/jobs/webhooks/{registry}/8/asc/1" for registry in registries),
    ]  # fmt: skip


def wrong_pages() -> list[str]:
    """Pages with hostile words in every part of their URL: most of these say that there is no such thing."""
    words = [quote(text, safe="") for text in CORPUS]
    arguments = ("/dead/?queue=", "/analytics/?zone=", "/analytics/?since=", "/queues/webhooks?lane=", "/jobs/?find=",
                 "/queues/webhooks?state=", "/webhooks/?outcome=", "/webhooks/?page=", "/login?next=")  # fmt: skip
    parts = ("/jobs/", "/queues/", "/batches/", "/webhooks/deliveries/", "/dead/groups/", "/dead/repairs/",
             "/rq/0/view/job/", "/")  # fmt: skip
    return [prefix + words[index % len(words)] for index, prefix in enumerate((*arguments, *parts))] + [
        f"/jobs/{words[1]}/edit", f"/rq/0/view/jobs/{words[0]}/failed/8/asc/1",
    ]  # fmt: skip
