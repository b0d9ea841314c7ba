"""After good and failed jobs the token is nowhere: no page, no command's output, no log, no value in Redis."""

import itertools
import json
import re

import pytest

from rqjobs import enqueue, enqueue_batch, policies
from rqjobs.batches import list_batches
from rqjobs.config.settings import use_settings
from rqjobs.testing.sandbox.manychat import Fault
from rqjobs.web import create_app
from tests.support.everything import everything
from tests.support.manychat import TOKEN, job, sandbox
from tests.support.workers import eventually

SECRET = TOKEN.partition(":")[2]
UPDATE = "subscriber/updateSubscriber"


@pytest.fixture
def ids(redis, workers, monkeypatch):
    """A job refused for good, one that was retried, a good one, a delayed one, and the worker; ManyChat repeats the
    token each time.
    """
    echo = f"Bearer {TOKEN} may not, says the sandbox; nor may {SECRET}"
    refusal = {"status": "error", "message": "Validation error", "details": {"messages": {"x": {"message": [echo]}}}}
    with sandbox(monkeypatch) as api:
        api.account.call("POST", "subscriber/createSubscriber", {"email": "ada@example.com", "has_opt_in_email": True})
        api.account.call("POST", "page/createTag", {"name": "vip"})  # so that the list of tags stays in the cache
        api.fail_next(UPDATE, Fault(400, json.dumps(refusal)), Fault(500, echo))
        changes = [{"first_name": "refused"}, {"first_name": "away"}, {"add_tags": ["vip"]}]
        update = [job("contact", "update", {"email": "ada@example.com", **one}, merge=True) for one in changes]
        names = ("refused", "away", "good")
        workers.start("manychat-sync", "--threads", "1")
        for name, one in zip(names, update, strict=True):
            enqueue(one, job_id=name, attempts=2 if name == "away" else 1, backoff="fixed:1s")
            eventually(lambda name=name: workers.logs().count(f"id={name}") > 0)
        eventually(lambda: ends(redis) == {"refused": b"failed", "away": b"finished", "good": b"finished"})
        enqueue(update[2], job_id="delayed", delay="1h")
        yield [*names, "delayed"]


def ends(redis):
    return {name: redis.hget(f"rq:job:{name}", "status") for name in ("refused", "away", "good")}


def test_the_token_is_nowhere(ids, redis, workers, monkeypatch):
    seen = {
        "logs": workers.logs(),
        "redis": everything(redis),
        **dict(pages(ids, monkeypatch)),
        **dict(outputs(ids, workers)),
    }
    for where, text in seen.items():
        assert SECRET not in text, where
        assert text, where
    # That it was there to be repeated, and hidden: else this test could not fail.
    assert len(seen) > 100
    hiding = {where for where, text in seen.items() if "*** may not, says the sandbox" in text}
    assert {"logs", "redis", "/jobs/refused", "/rq/0/data/job/refused.json", "failed show refused"} <= hiding


def pages(ids, monkeypatch):
    """Every page of the dashboard by its address. One with an argument that is not known here is a failure."""
    monkeypatch.setenv("DASHBOARD_PASSWORD", "correct horse")
    use_settings(None)
    app = create_app()
    client = app.test_client()
    token = csrf(client.get("/login").text)
    client.post("/login", data={"username": "admin", "password": "correct horse", "csrf_token": token})
    group = re.search(r'"/dead/groups/([^"]+)"', client.get("/dead/").text)[1]
    repair = client.post(f"/dead/groups/{group}", data={"csrf_token": csrf(client.get("/").text), "mode": "dry-run"})
    known = {
        "job_id": ids,
        "group_id": [group],
        "batch_id": [
            enqueue_batch([job("contact", "update", {"email": "ada@example.com", "add_tags": ["vip"]})], delay="1h").id
        ],
        "bulk_id": [repair.location.rpartition("/")[2]],
        "name": ["manychat-sync"],
        "queue_name": policies.lanes("manychat-sync"),
        "registry_name": [
            "queued",
            "scheduled",
            "deferred",
            "started",
            "finished",
            "failed",
            "canceled",
            "rate_limited",
        ],
        "per_page": [50],
        "order": ["asc", "dsc"],
        "page": [1],
        "instance_number": [0],
        "filename": ["app.css"],
    }
    states = ("waiting", "running", "delayed", "dead", "done")
    queries = {"queues.show": [f"?state={state}" for state in states], "jobs.find": ["?find=refused"]}
    adapter = app.url_map.bind("localhost")
    for rule in app.url_map.iter_rules():
        if "GET" not in rule.methods or rule.endpoint == "rq_dashboard.static":  # its files are not sent
            continue
        names = sorted(rule.arguments - set(rule.defaults or {}))
        for values in itertools.product(*(known[name] for name in names)):
            path = adapter.build(rule.endpoint, {**(rule.defaults or {}), **dict(zip(names, values, strict=True))})
            for query in queries.get(rule.endpoint, [""]):
                with client.get(path + query, follow_redirects=True) as answer:
                    only_dead = rule.endpoint == "jobs.edit" and "refused" not in values
                    none = only_dead or rule.endpoint == "webhooks.delivery"
                    assert answer.status_code == (404 if none else 200), (path, answer.text[-300:])
                    yield path + query, f"{answer.headers}{answer.data.decode(errors='replace')}"


def csrf(html):
    return re.search(r'name="csrf_token" value="([^"]+)"', html)[1]


def outputs(ids, workers):
    """What the command line prints of the jobs, of their batch and of schedules, in both forms."""
    (batch,) = list_batches()
    commands = [["doctor"], ["health"], ["failed", "list"], ["failed", "groups"], ["failed", "show", "refused"]]
    commands += [["jobs", "show", one] for one in ids]
    commands += [["batches", "list"], ["batches", "show", batch.id], ["batches", "requeue-dead", batch.id]]
    commands += [["schedules", "list"]]
    for command in commands:
        for form in ([], ["--json"]):
            done = workers.run(*command, *form)
            assert "Traceback" not in done.stderr
            yield " ".join([*command, *form]), done.stdout + done.stderr
