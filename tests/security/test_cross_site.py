"""Changes by other sites, and redirects to them: every POST route, every form of a hostile address, counted."""

from __future__ import annotations

from typing import Any

import pytest
import redis as redis_py
from flask import Flask
from flask.testing import FlaskClient

from rqjobs import enqueue
from tests.support.dashboard import PASSWORD, every_route, snapshot, token_of, webhook
from tests.support.hostile import kill

ORIGINS = ("https://evil.example", "null", "http://localhost.evil.example", "https://localhost:1", "file://", "")
SITES = ("cross-site", "same-site")


def requests(token: str) -> list[dict[str, Any]]:
    """What another site can have a browser send, and what lacks a token."""
    right = {"csrf_token": token}
    found: list[dict[str, Any]] = [{"data": right, "headers": {"Origin": origin}} for origin in ORIGINS[:5]]
    found += [{"data": right, "headers": {"Sec-Fetch-Site": site}} for site in SITES]
    wrong = ("", "wrong", token[:-1], token + "x", token.swapcase())
    found += [{"data": {"csrf_token": text}} for text in wrong]
    found += [{"data": {}}, {"json": right}, {"query_string": right}, {"data": {}, "headers": {"X-CSRF-Token": "x"}}]
    return found


def test_no_other_site_changes_anything(
    app: Flask, client: FlaskClient, token: str, redis: redis_py.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    job = enqueue(webhook())
    kill(job.id, job.origin, "ValueError: x", redis)
    before, tried = snapshot(redis), 0
    for method, path, endpoint in every_route(app):
        if method == "POST" and endpoint != "auth.login":
            for given in requests(token):
                assert client.post(path, **given).status_code in (400, 403), (path, given)
                tried += 1
    after = snapshot(redis)
    assert {name for name in before if before[name] != after.get(name) and b"session" not in name} == set()
    assert tried >= 250
    with capsys.disabled():
        print(f"\nchanges by other sites: {tried} refused, 0 open")


def addresses() -> set[str]:
    """Values of ``next`` that a browser would follow to another site, or run."""
    heads = ("//", "/\\", "\\\\", "\\/", "///", "////", "/\t/", "\t//", " //", "\n//", "/\r/", "http://", "https://",
             "https:", "http:/", "HTTPS://", "https:\\\\", "ftp://", "//a@", "/%09/", "https://localhost@")  # fmt: skip
    found = {head + tail for head in heads for tail in ("evil.example", "evil.example/x?y", "3232235521", "[::1]:80")}
    words = ("javascript:alert(1)", "JaVaScRiPt:alert(1)", "data:text/html,x", "vbscript:x", "\x00//evil.example",
             "\u2028//evil.example", ".evil.example", "@evil.example", ":80@evil.example", "evil.example")  # fmt: skip
    return found | set(words) | {f"\t{word}" for word in words}


def test_a_sign_in_leads_to_no_other_site(app: Flask, capsys: pytest.CaptureFixture[str]) -> None:
    tried = addresses()
    for target in sorted(tried):
        client = app.test_client()
        token = token_of(client.get("/login").text)
        form = {"username": "admin", "password": PASSWORD, "csrf_token": token, "next": target}
        answer = client.post("/login", data=form)
        if "\0" in target:  # refused wherever it comes
            assert answer.status_code == 404
            continue
        assert answer.status_code == 302, target
        location = answer.headers["Location"]
        assert location.startswith("/"), (target, location)
        assert not location.startswith(("//", "/\\", "/\t", "/\r", "/\n")), (target, location)
    assert len(tried) >= 100
    with capsys.disabled():
        print(f"\nredirects to other sites: {len(tried)} refused, 0 open")
