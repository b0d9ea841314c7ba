"""The example apps as a newcomer runs them: a server, requests, a worker, and what came of it."""

import os
import re
import sqlite3
import subprocess
import sys

import pytest

from rqjobs.testing.sandbox.receiver import Receiver, signing_secret
from tests.support.servers import Browser, free_port
from tests.support.workers import ROOT

EXAMPLES = ROOT / "examples"


@pytest.fixture
def receiver(monkeypatch):
    secret = signing_secret()
    monkeypatch.setenv("WEBHOOK_SIGNING_SECRET", secret)
    monkeypatch.setenv("WEBHOOK_ALLOW", "127.0.0.1")
    with Receiver(secret) as receiver:
        monkeypatch.setenv("SHOP_WEBHOOK_URL", f"{receiver.url}/ok")
        yield receiver


@pytest.fixture
def shell(workers, tmp_path, monkeypatch):
    """Runs a program of this environment in an example's folder."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    def run(folder, *command, background=False, **extra):
        environment = {**os.environ, "PYTHONPATH": f"{EXAMPLES / folder}:{ROOT}", **extra}
        program = [sys.executable, *command]
        if not background:
            return subprocess.run(
                program,
                cwd=EXAMPLES / folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=180,
                check=False,
            )
        with (tmp_path / "server.log").open("w") as log:
            process = subprocess.Popen(program, cwd=EXAMPLES / folder, env=environment, stdout=log, stderr=log)
        workers.processes.append(process)
        return process

    return run


def test_flask(shell, receiver):
    port = free_port()
    shell("flask_shop", "-m", "flask", "--app", "app", "run", "--port", str(port), background=True)
    browser = Browser(f"http://127.0.0.1:{port}").wait()
    answer = browser.post("/bookings", {"id": 4711, "amount": 12.5})
    assert answer.status == 202, answer.text
    assert browser.get("/health").json == {
        "webhooks": 1, "manychat-sync": 0, "email": 0, "qr-analytics": 0, "data-export": 0, "receipts": 1
    }  # fmt: skip
    worker = shell("flask_shop", "-m", "flask", "--app", "app", "rqjobs", "worker", "--burst", "webhooks", "receipts")
    assert worker.returncode == 0, worker.stderr
    (request,) = receiver.received
    assert (request.verified, request.json["payload"]) == (True, {"id": 4711, "amount": 12.5})
    shown = shell("flask_shop", "-m", "flask", "--app", "app", "rqjobs", "jobs", "show", answer.json["receipt"])
    assert "receipt 4711: 12.50" in shown.stdout

    assert browser.get("/rqjobs/").status == 403
    browser.post("/login", {"role": "admin", "user_id": "u1"})
    page = browser.get("/rqjobs/")
    assert page.status == 200
    assert "receipts" in page.text
    assert "Sign out" not in page.text
    css = re.search(r'href="([^"]+app\.css)"', page.text)[1]
    assert css.startswith("/rqjobs/static/")
    assert browser.get(css).status == 200
    assert browser.get("/exports/no-such-token").status in (403, 404)
    assert browser.post("/rqjobs/dead", form={"all": "1"}).status in (403, 404, 405)  # no token, no change


def django(shell, *args, **extra):
    done = shell("django_shop", "manage.py", *args, **extra)
    assert done.returncode == 0, done.stderr + done.stdout
    return done


def test_django(shell, receiver, tmp_path, monkeypatch):
    database = tmp_path / "shop.sqlite3"
    monkeypatch.delenv("DATABASE_URL")  # the project's own database is the default
    monkeypatch.setenv("SHOP_DATABASE", str(database))
    django(shell, "migrate", "--verbosity", "0")
    django(shell, "rqjobs", "db", "init")
    django(shell, "createsuperuser", "--noinput", "--username", "ada", "--email", "ada@example.com",
           DJANGO_SUPERUSER_PASSWORD="secret")  # fmt: skip
    port = free_port()
    shell("django_shop", "manage.py", "runserver", "--noreload", str(port), background=True)
    browser = Browser(f"http://127.0.0.1:{port}").wait()

    assert browser.post("/bookings", {"user_id": "u1", "amount": "1.00", "seats": 11}).status == 409
    assert browser.post("/bookings", {"user_id": "u1", "amount": "12.50"}).status == 202
    health = shell("django_shop", "manage.py", "rqjobs", "health", "--json").stdout  # exit 1: no worker yet
    assert health.count('"waiting": 1') == 2  # the rolled-back booking enqueued nothing
    worker = django(shell, "rqjobs", "worker", "--burst", "webhooks", "receipts")
    assert "job failed" not in worker.stderr
    (request,) = receiver.received
    assert request.json["payload"] == {"booking": 1}
    exported = django(
        shell, "rqjobs", "enqueue", "data-export", '{"userId": "u1", "exportType": "csv", "dataType": "shop_bookings"}'
    )
    django(shell, "rqjobs", "worker", "--burst", "data-export")
    shown = django(shell, "rqjobs", "jobs", "show", exported.stdout.strip())
    assert ", done," in shown.stdout, shown.stdout
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM rqjobs_exports").fetchone() == (1,)
    connection.close()

    page = browser.get("/rqjobs/")
    assert "/admin/login/" in page.url
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)[1]
    form = {"username": "ada", "password": "secret", "csrfmiddlewaretoken": token, "next": "/rqjobs/"}
    page = browser.post("/admin/login/?next=/rqjobs/", form=form)
    assert page.status == 200, page.text
    assert page.url.endswith("/rqjobs/")
    assert "webhooks" in page.text
    css = re.search(r'href="([^"]+app\.css)"', page.text)[1]
    assert browser.get(css).status == 200
    assert browser.get("/rqjobs/downloads/no-such-token").status in (403, 404)


def test_fastapi(shell, receiver):
    port = free_port()
    shell("fastapi_shop", "-m", "uvicorn", "app:app", "--port", str(port), background=True)
    browser = Browser(f"http://127.0.0.1:{port}").wait()
    assert browser.post("/bookings", {"id": 1, "amount": 12}).status == 202
    assert browser.post("/bookings", {"id": 1, "amount": 12}).status == 500  # the same id again: rolled back
    assert browser.get("/q/ABC123").json["event"]
    assert browser.get("/health").json["webhooks"] == 0  # it is in the outbox
    worker = shell("fastapi_shop", "-m", "rqjobs", "worker", "--burst", "webhooks", "qr-analytics")
    assert worker.returncode == 0, worker.stderr
    (request,) = receiver.received
    assert request.json["payload"] == {"id": 1, "amount": 12}
    assert browser.get("/health").json["qr-analytics"] == 0


def test_django_s_own_tests(shell, receiver, tmp_path, monkeypatch):
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setenv("SHOP_DATABASE", str(tmp_path / "shop.sqlite3"))
    done = django(shell, "test", REDIS_URL="redis://127.0.0.1:1")  # they need no Redis
    checked = django(shell, "check", EMAIL_BACKEND="django.core.mail.backends.smtp.EmailBackend")
    assert "rqjobs.W003" in checked.stderr
    assert "Ran 9 tests" in done.stderr
