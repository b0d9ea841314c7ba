"""The endpoint for platforms that have only a cron."""

import asyncio
import json
import threading

import pytest

from rqjobs import EmailJob, enqueue_many, wait_for_result
from rqjobs.config.settings import use_settings
from rqjobs.integrations import burst
from rqjobs.testing.sandbox.mail import MailAPI
from tests.support.ownjobs import greet
from tests.support.processors import ProbeJob
from tests.support.workers import eventually


@pytest.fixture(autouse=True)
def token(redis, monkeypatch, workers):
    monkeypatch.setenv("RQJOBS_CRON_TOKEN", "open-sesame-1001")
    for name, value in workers.environment(RQJOBS_IMPORT="tests.support.ownjobs tests.support.processors").items():
        monkeypatch.setenv(name, value)
    use_settings(None)


def call(method="POST", authorization="Bearer open-sesame-1001", query=""):
    answers = []
    environ = {"REQUEST_METHOD": method, "HTTP_AUTHORIZATION": authorization, "QUERY_STRING": query}
    (body,) = burst.wsgi(environ, lambda status, headers: answers.append(status))
    return answers[0], body.decode()


def test_a_burst_runs_the_waiting_jobs(tmp_path):
    good = greet.enqueue({"name": "Ada"})
    enqueue_many([ProbeJob(log=str(tmp_path / "x"), do="permanent")])
    status, body = call()
    assert status == "200 OK"
    assert body.startswith('{"completed": 1, "failed": 1, "seconds": ')
    assert wait_for_result(good) == "hello Ada"


def test_it_stays_for_jobs_that_wait_for_their_turn(configure):
    with MailAPI() as api:
        configure(EMAIL_BACKEND="resend", RESEND_API_URL=api.url, RESEND_API_KEY=api.key, RESEND_RATE="4/s")
        mail = EmailJob(to="a@x.example", subject="s", template="welcome", data={})
        enqueue_many([mail] * 12)
        document = json.loads(call()[1])
    assert (document["completed"], document["more"], len(api.sent)) == (12, False, 12)
    assert document["seconds"] > 1.5


def test_requests_without_the_token_are_refused():
    for bad in ("", "Bearer", "Bearer open-sesame-100", "Basic open-sesame-1001", "Bearer open-sesame-1001é"):
        assert call(authorization=bad)[0] == "401 Unauthorized"
    assert call("DELETE")[0] == "405 Method Not Allowed"
    for bad in ("0", "soon", "nan", "inf", "9999"):
        assert call(query=f"seconds={bad}")[0] == "400 Bad Request"


def test_without_a_token_it_is_closed(monkeypatch):
    monkeypatch.setenv("RQJOBS_CRON_TOKEN", "")
    use_settings(None)
    assert call(authorization="Bearer ") == ("503 Service Unavailable", '{"error": "set RQJOBS_CRON_TOKEN"}')


def test_a_second_burst_at_the_same_time_is_refused(tmp_path):
    enqueue_many([ProbeJob(log=str(tmp_path / "x"), do="wait")])
    first = threading.Thread(target=call)
    first.start()
    eventually(burst._running.locked)
    assert call()[0] == "409 Conflict"
    (tmp_path / "x.go").touch()
    first.join()


@pytest.mark.asyncio
async def test_asgi():
    sent = []
    scope = {"type": "http", "method": "POST", "query_string": b"", "headers": [(b"authorization", b"Bearer no")]}

    async def send(message):
        sent.append(message)

    await burst.asgi(scope, asyncio.Event().wait, send)
    assert [message.get("status") for message in sent] == [401, None]

    states = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive():
        return {"type": next(states)}

    sent.clear()
    await burst.asgi({"type": "lifespan"}, receive, send)
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
