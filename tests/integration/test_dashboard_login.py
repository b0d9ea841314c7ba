"""The dashboard's sign-ins: when they end, how wrong passwords are slowed down, and which host names are answered."""

from __future__ import annotations

import json
import threading
from datetime import timedelta

import pytest
import redis as redis_py
from flask import Flask
from flask.testing import FlaskClient

from rqjobs.broker.keys import session
from rqjobs.config.settings import use_settings
from rqjobs.errors import InvalidSettings
from rqjobs.web import create_app
from rqjobs.web.login_limits import ALL, ONE, LoginLimits, counted_as
from rqjobs.web.sessions import SignIns
from tests.support.dashboard import PASSWORD, sign_in, token_of

SESSION = "rqjobs_session"


def cookie_of(client: FlaskClient, name: str = SESSION) -> str:
    cookie = client.get_cookie(name)
    assert cookie is not None
    return cookie.value


def with_cookie(app: Flask, value: str) -> FlaskClient:
    client = app.test_client()
    client.set_cookie(SESSION, value)
    return client


def attempt(client: FlaskClient, password: str = "wrong", address: str = "127.0.0.1", **headers: str) -> int:
    place = {"REMOTE_ADDR": address}
    token = token_of(client.get("/login", environ_overrides=place, headers=headers).text)
    form = {"username": "admin", "password": password, "csrf_token": token}
    return client.post("/login", data=form, environ_overrides=place, headers=headers).status_code


# Sign-ins


def test_a_copied_cookie_is_dead_after_sign_out(app: Flask, client: FlaskClient, token: str) -> None:
    copied = cookie_of(client)
    assert with_cookie(app, copied).get("/").status_code == 200
    assert client.post("/logout", data={"csrf_token": token}).status_code == 302
    assert with_cookie(app, copied).get("/").status_code == 302


def test_sign_out_ends_no_other_sign_in(app: Flask, client: FlaskClient, token: str) -> None:
    other = sign_in(app)
    client.post("/logout", data={"csrf_token": token})
    assert other.get("/").status_code == 200


def test_another_password_ends_a_sign_in_and_the_old_one_does_not_bring_it_back(
    app: Flask, client: FlaskClient
) -> None:
    copied = cookie_of(client)
    assert with_cookie(create_app("another"), copied).get("/").status_code == 302


def test_neither_the_cookie_nor_redis_holds_the_password_or_an_id_that_can_be_used(
    app: Flask, client: FlaskClient, redis: redis_py.Redis
) -> None:
    serializer = app.session_interface.get_signing_serializer(app)  # type: ignore[attr-defined]
    content = serializer.loads(cookie_of(client))
    assert set(content) == {"_permanent", "id", "token"}
    other = serializer.loads(cookie_of(sign_in(app)))
    assert other["id"] != content["id"]
    keys = redis.keys(session("*"))
    assert len(keys) == 2
    assert content["id"] not in repr(keys) + repr([redis.get(key) for key in keys])
    # Who writes a record for an id of his choice cannot sign the cookie that names it.
    forged = json.dumps({**content, "id": "known"})
    assert with_cookie(app, forged).get("/").status_code == 302


def test_a_login_makes_a_new_session(app: Flask) -> None:
    client = app.test_client()
    planted = token_of(client.get("/login").text)
    client.post("/login", data={"username": "admin", "password": PASSWORD, "csrf_token": planted})
    html = client.get("/").text
    assert token_of(html) != planted
    assert client.post("/logout", data={"csrf_token": planted}).status_code == 403


def test_a_sign_in_has_a_lifetime_and_ends_without_use(redis: redis_py.Redis) -> None:
    long, idle = timedelta(hours=12), timedelta(hours=2)
    sign_ins = SignIns(b"key", long, idle)
    known = sign_ins.start()
    (key,) = redis.keys(session("*"))
    assert 7100 < redis.ttl(key) <= 7200
    # A use makes it live for the idle time again, what a page fetches by itself does not.
    redis.expire(key, 100)
    assert sign_ins.is_live(known, renew=False)
    assert redis.ttl(key) <= 100
    assert sign_ins.is_live(known, renew=True)
    assert redis.ttl(key) > 7100
    # ... but never beyond its lifetime.
    started = json.loads(redis.get(key))["started"]
    redis.set(key, sign_ins._record(known, started - 12 * 3600 + 1000), ex=10)
    assert sign_ins.is_live(known, renew=True)
    assert 900 < redis.ttl(key) <= 1001
    redis.set(key, sign_ins._record(known, started - 12 * 3600), ex=10)
    assert not sign_ins.is_live(known, renew=True)
    assert SignIns(b"key", timedelta(seconds=1), idle).start()
    assert {redis.ttl(each) for each in redis.keys(session("*")) if each != key} <= {0, 1}


def test_a_writer_to_redis_makes_no_session_and_prolongs_none(
    app: Flask, client: FlaskClient, token: str, redis: redis_py.Redis
) -> None:
    copied = cookie_of(client)
    (own,) = redis.keys(session("*"))
    other = sign_in(app)
    (theirs,) = set(redis.keys(session("*"))) - {own}
    record, others = json.loads(redis.get(own)), redis.get(theirs)
    redis.set(own, json.dumps({**record, "started": record["started"] + 30}))
    assert with_cookie(app, copied).get("/").status_code == 302
    client.post("/logout", data={"csrf_token": token})
    for forged in (others, json.dumps({**record, "started": record["started"] + 1}), json.dumps({"started": 2e9})):
        redis.set(own, forged)
        assert with_cookie(app, copied).get("/").status_code == 302
    assert other.get("/").status_code == 200


@pytest.mark.parametrize("record", ["", "{", "[]", "null", "\xff", '{"started": 1e999, "login": "x"}',
                                    '{"started": "now"}', '{"started": 0, "login": []}', "[" * 100_000])  # fmt: skip
def test_an_unreadable_session_record_is_not_a_session(app: Flask, redis: redis_py.Redis, record: str) -> None:
    client = sign_in(app)
    (key,) = redis.keys(session("*"))
    redis.set(key, record.encode("latin-1"))
    assert client.get("/").status_code == 302
    redis.delete(key)
    redis.rpush(key, "a list")
    assert client.get("/").status_code == 302


# Wrong passwords


def test_a_thousand_attempts_from_one_address(app: Flask) -> None:
    owner = sign_in(app)
    token = token_of(owner.get("/").text)
    owner.post("/logout", data={"csrf_token": token})
    attacker = app.test_client()
    token = token_of(attacker.get("/login").text)
    codes = [attacker.post("/login", data={"password": "x", "csrf_token": token}).status_code for _ in range(1000)]
    assert codes.count(401) == 10
    assert codes.count(429) == 990
    # The right password is refused as well, so the attacker does not learn that it is right ...
    assert attempt(app.test_client(), PASSWORD) == 429
    # ... but not to the owner's browser, behind the same proxy, nor to a scraper.
    assert attempt(owner, PASSWORD) == 302
    assert app.test_client().get("/ready", auth=("admin", PASSWORD)).status_code == 200
    assert attempt(app.test_client(), PASSWORD, "192.0.2.7") == 302


def test_a_thousand_attempts_from_a_thousand_addresses(app: Flask) -> None:
    owner = sign_in(app)
    owner.delete_cookie(SESSION)
    attacker = app.test_client()
    token = token_of(attacker.get("/login").text)
    codes = [
        attacker.post(
            "/login",
            data={"password": "x", "csrf_token": token},
            environ_overrides={"REMOTE_ADDR": f"10.0.{n // 250}.{n % 250 + 1}"},
        ).status_code
        for n in range(1000)
    ]
    # In the seconds that this takes, one or two waits of five seconds and more are over.
    assert 50 <= codes.count(401) <= 60
    assert attempt(app.test_client(), PASSWORD, "192.0.2.7") == 429
    assert attempt(owner, PASSWORD, "192.0.2.7") == 302
    assert attempt(app.test_client(), PASSWORD, "127.0.0.1") == 302, "a tunnel to the machine itself"


def test_passwords_that_are_sent_at_once_do_not_all_pass(app: Flask) -> None:
    client = app.test_client()
    token = token_of(client.get("/login").text)
    cookie, codes = cookie_of(client), []

    def send() -> None:
        codes.append(with_cookie(app, cookie).post("/login", data={"password": "x", "csrf_token": token}).status_code)

    threads = [threading.Thread(target=send) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [401] * 10 + [429] * 30


def test_waits_grow_and_end() -> None:
    now = 1000.0
    limits = LoginLimits(lambda: now)
    client = counted_as("people", "192.0.2.7")
    waits = []
    for _ in range(16):
        while (wait := limits.admit(client)) > 0:
            waits.append(wait)
            now += wait
    assert waits[:4] == [30, 60, 120, 240]
    assert max(waits) <= 300
    assert min(waits[4:]) >= 240
    now += 24 * 3600
    assert [limits.admit(client) for _ in range(10)] == [0] * 10
    assert limits.admit(client) > 0
    # What was right does not count.
    other = counted_as("people", "192.0.2.8")
    for _ in range(100):
        assert limits.admit(other) == 0
        limits.take_back(other)


def test_clients_are_counted_by_address_network_or_device() -> None:
    def own(address: str, **options: object) -> object:
        return counted_as("people", address, **options)[0]  # type: ignore[arg-type]

    assert own("2001:db8:1:2::1") == own("2001:db8:1:2:ffff::9") != own("2001:db8:1:3::1")
    assert own("::ffff:192.0.2.7") == own("192.0.2.7")
    assert own("192.0.2.7", device="a") != own("192.0.2.7", device="b")
    assert [rule for _, rule in counted_as("people", "127.0.0.1")] == [ONE]
    assert [rule for _, rule in counted_as("people", "127.0.0.1", forwarded=True)] == [ONE, ALL]


def test_a_forged_device_cookie_is_none(app: Flask) -> None:
    client = app.test_client()
    token = token_of(client.get("/login").text)
    codes = []
    for number in range(12):
        client.set_cookie("rqjobs_device", f"forged{number}")
        codes.append(client.post("/login", data={"password": "x", "csrf_token": token}).status_code)
    assert codes == [401] * 10 + [429] * 2


# Hosts and proxies


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9191", "127.0.0.1.evil.example",
    "localhost.evil.example", "127.0.0.1@evil.example", "ops.example.com.evil.example",
    "", "[::1", "ops.example.com:port"])  # fmt: skip
def test_other_host_names_are_refused(app: Flask, host: str) -> None:
    for path in ("/login", "/", "/metrics", "/static/app.css", "/nothing"):
        response = app.test_client().get(path, environ_overrides={"HTTP_HOST": host})
        assert response.status_code == 421, (host, path)
        assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize("host", ["localhost", "localhost:9181", "127.0.0.1:9181", "[::1]:9181", "10.1.2.3:9181",
    "ops.example.com", "OPS.example.com:8443", "ops.example.com.", "rqjobs-dashboard:9181"])  # fmt: skip
def test_own_host_names_are_answered(redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("DASHBOARD_URL", "https://ops.example.com/rq")
    monkeypatch.setenv("DASHBOARD_HOSTS", "rqjobs-dashboard other.example")
    use_settings(None)
    client = create_app(PASSWORD).test_client()
    assert client.get("/login", environ_overrides={"HTTP_HOST": host}).status_code == 200


def test_mounted_in_an_app_the_app_decides_on_hosts(redis: redis_py.Redis) -> None:
    app = create_app(let_in=lambda: True)
    assert app.test_client().get("/", environ_overrides={"HTTP_HOST": "shop.example"}).status_code == 200


def test_behind_https_cookies_are_bound_to_it(app: Flask) -> None:
    client = app.test_client()
    https = {"X-Forwarded-Proto": "https"}
    response = client.get("/login", headers=https)
    assert response.headers["Strict-Transport-Security"] == "max-age=31536000"
    form = {"username": "admin", "password": PASSWORD, "csrf_token": token_of(response.text)}
    response = client.post("/login", data=form, headers=https)
    assert response.status_code == 302
    for cookie in response.headers.getlist("Set-Cookie"):
        assert cookie.startswith("__Host-rqjobs_"), cookie
        for flag in ("Secure", "HttpOnly", "Path=/", "SameSite"):
            assert flag in cookie, cookie
        assert "Domain" not in cookie
    # Without https, a cookie of another name is looked for: the secure one is never taken from an insecure request.
    assert client.get("/", headers=https).status_code == 200
    assert client.get("/").status_code == 302
    assert "Strict-Transport-Security" not in client.get("/login").headers


def test_where_dashboard_url_is_https_its_host_is(redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASHBOARD_URL", "https://ops.example.com")
    use_settings(None)
    client = create_app(PASSWORD).test_client()
    elsewhere = {"REMOTE_ADDR": "192.0.2.1"}
    own = client.get("/login", environ_overrides={"HTTP_HOST": "ops.example.com", **elsewhere})
    assert own.headers["Set-Cookie"].startswith("__Host-")
    assert "Strict-Transport-Security" in own.headers
    assert "Secure" not in client.get("/login", environ_overrides=elsewhere).headers["Set-Cookie"]


def test_forwarded_headers_are_trusted_from_trusted_proxies_only(
    redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASHBOARD_TRUSTED_PROXIES", "10.0.0.0/24")
    use_settings(None)
    app = create_app(PASSWORD)
    seen: list[tuple[str | None, str]] = []

    @app.after_request
    def note(response):
        from flask import request

        seen.append((request.remote_addr, request.scheme))
        return response

    def ask(peer: str, forwarded: str) -> tuple[str | None, str]:
        headers = {"X-Forwarded-For": forwarded, "X-Forwarded-Proto": "https"}
        app.test_client().get("/login", headers=headers, environ_overrides={"REMOTE_ADDR": peer})
        return seen[-1]

    assert ask("192.0.2.1", "203.0.113.5") == ("192.0.2.1", "http")
    assert ask("127.0.0.1", "203.0.113.5") == ("127.0.0.1", "http")
    assert ask("10.0.0.2", "203.0.113.5") == ("203.0.113.5", "https")
    # What the client wrote itself stands left of what the proxies saw.
    assert ask("10.0.0.2", "1.1.1.1, 203.0.113.5, 10.0.0.3") == ("203.0.113.5", "https")
    assert ask("10.0.0.2", "1.1.1.1, <script>") == ("10.0.0.2", "https")
    assert ask("10.0.0.2", "") == ("10.0.0.2", "https")
    # So an attacker who forges the header is counted as one client.
    codes = [attempt(app.test_client(), address="192.0.2.1", **{"X-Forwarded-For": f"9.9.9.{n}"}) for n in range(12)]
    assert codes == [401] * 10 + [429] * 2


@pytest.mark.parametrize(("name", "value"), [("DASHBOARD_TRUSTED_PROXIES", "proxy.example"),
    ("DASHBOARD_TRUSTED_PROXIES", "10.0.0.0/33"), ("DASHBOARD_HOSTS", "https://ops.example.com"),
    ("DASHBOARD_HOSTS", "ops.example.com:443"), ("DASHBOARD_SESSION_IDLE", "10s"),
    ("DASHBOARD_SESSION_LIFETIME", "400d")])  # fmt: skip
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    use_settings(None)
    with pytest.raises(InvalidSettings, match=name):
        create_app(PASSWORD)
