"""Groups outside the scripts: options, settings, commands, pages, doctor, RQ's own worker, and drain."""

from __future__ import annotations

import json

import pytest
import redis as redis_py
from click.testing import CliRunner
from flask.testing import FlaskClient

from rqjobs import InvalidJob, decorator, enqueue, enqueue_batch, enqueue_many
from rqjobs.broker.groups import membership
from rqjobs.broker.rq_schema import key
from rqjobs.cli import cli
from rqjobs.config.settings import use_settings
from rqjobs.database import get_engine
from rqjobs.database.schema import init_database
from rqjobs.errors import InvalidSettings
from rqjobs.monitoring.doctor.jobs import look, lost
from rqjobs.outbox.relay import relay
from rqjobs.policies import get_policy
from rqjobs.testing import drain
from rqjobs.worker.rq_worker import run_stock_worker
from tests.support.groups import ScriptedWorker
from tests.support.processors import ProbeJob


def run(*args: str) -> str:
    return CliRunner().invoke(cli, args, catch_exceptions=False, standalone_mode=False).output


def put(tmp_path, *groups: str | None, outbox=None, **options) -> list[str]:
    log = str(tmp_path / "log")
    jobs = [(ProbeJob(log=log, value=number), {"group": group, **options}) for number, group in enumerate(groups)]
    return [job.id for job in enqueue_many(jobs, outbox=outbox)]


@pytest.fixture
def one_at_once(monkeypatch: pytest.MonkeyPatch, redis: redis_py.Redis) -> None:
    monkeypatch.setenv("RQJOBS_PROBE_GROUP_CONCURRENCY", "1")
    use_settings(None)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("GROUP_CONCURRENCY", "0", "greater than or equal to 1"),
        ("GROUP_CONCURRENCY", "many", "integer"),
        ("GROUP_RATE", "fast", "write 10/s"),
        ("GROUP_ORDER", "fifo", "'strict' or 'skip'"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch, name, value, said) -> None:
    monkeypatch.setenv(f"RQJOBS_EMAIL_{name}", value)
    use_settings(None)
    with pytest.raises(InvalidSettings, match=f"RQJOBS_EMAIL_{name}: .*{said}"):
        get_policy("email")


def test_settings_and_the_decorator_set_the_limits(monkeypatch) -> None:
    limits = {"group_concurrency": 1, "group_rate": "10/s", "group_order": "skip"}
    own = decorator.job(queue="grouped", **limits)(lambda payload: None)
    policy = get_policy(own.queue)
    assert (policy.group_concurrency, str(policy.group_rate), policy.group_slot) == (1, "10/1s", "run")
    monkeypatch.setenv("RQJOBS_GROUPED_GROUP_ORDER", "strict")
    monkeypatch.setenv("RQJOBS_GROUPED_RATE", "7/s")
    use_settings(None)
    policy = get_policy(own.queue)
    assert (policy.group_slot, str(policy.rate)) == ("job", "7/1s")


def test_a_wrong_rate_of_the_decorator_is_an_error() -> None:
    with pytest.raises(ValueError, match="group_rate: 'x' is not a rate"):
        decorator.job(queue="grouped", group_rate="x")(lambda payload: None)


def test_the_table_of_queues_names_the_limits(configure) -> None:
    configure(RQJOBS_EMAIL_GROUP_CONCURRENCY="1", RQJOBS_WEBHOOKS_GROUP_RATE="5/s")
    table = run("queues")
    assert "email, each group: one after the other, over retries" in table
    assert "webhooks, each group: 5/1s" in table
    email = next(queue for queue in json.loads(run("queues", "--json"))["queues"] if queue["name"] == "email")
    assert (email["group_concurrency"], email["sources"]["group_concurrency"]) == (1, "setting")


def test_the_command_line_takes_a_group(redis, tmp_path) -> None:
    job_id = run("enqueue", "probe", json.dumps({"log": str(tmp_path / "log")}), "--group", "customer 7").strip()
    assert "group customer 7; 0 of it wait before this job" in run("jobs", "show", job_id)
    assert json.loads(run("jobs", "show", job_id, "--json"))["group"] == "customer 7"
    with pytest.raises(InvalidJob, match="group: '' is not a text"):
        run("enqueue", "probe", json.dumps({"log": "x"}), "--group", "")


def test_a_job_shows_what_it_waits_for(one_at_once, redis, tmp_path) -> None:
    first, _second, third = put(tmp_path, "a", "a", "a", attempts=3)
    worker = ScriptedWorker(redis)
    worker.finish("retry", *worker.claim(1))
    found = membership(redis, third, "probe")
    assert found is not None
    assert found.text == f"group a; 1 of it wait before this job; its slots: {first} (delayed)"
    assert membership(redis, enqueue(ProbeJob(log="x")).id, "probe") is None


def test_the_pages_count_and_show_jobs_of_groups(one_at_once, redis, tmp_path, client: FlaskClient) -> None:
    first, second, plain = put(tmp_path, "a", "a", None)
    page = client.get("/queues/probe").text
    assert all(job in page for job in (first, second, plain))
    assert "waiting · 3<" in page
    page = client.get(f"/jobs/{second}").text
    assert "<dt>Group</dt><dd>a, 1 of it wait before this job" in page


def test_rq_dashboard_lists_and_empties_them(one_at_once, redis, tmp_path, client: FlaskClient, token: str) -> None:
    jobs = put(tmp_path, "a", "a", "b", None)
    rows = client.get("/rq/0/data/jobs/probe/queued/10/asc/1.json").json
    assert sorted(row["id"] for row in rows["jobs"]) == sorted(jobs)
    emptied = client.post("/rq/queue/probe/queued/empty", headers={"X-CSRF-Token": token})
    assert emptied.json == {"status": "OK", "count": 4}
    assert not redis.keys("rq:job:*")
    assert not redis.keys("rqjobs:groups:*:probe")


def test_doctor_finds_none_of_them_lost(one_at_once, redis, tmp_path) -> None:
    put(tmp_path, "a", "a", "b")
    seen = look(redis, every=True)
    assert [finding.state for finding in lost(seen)] == ["ok"]


def test_drain_runs_them_in_order(one_at_once, redis, tmp_path) -> None:
    jobs = put(tmp_path, "a", "b", "a", "a", None)
    runs = [ran.job_id for ran in drain("probe").runs]
    assert sorted(runs) == sorted(jobs)
    assert [job for job in runs if job in (jobs[0], jobs[2], jobs[3])] == [jobs[0], jobs[2], jobs[3]]


def test_the_outbox_keeps_the_group(one_at_once, redis, tmp_path) -> None:
    init_database(get_engine())
    with get_engine().begin() as transaction:
        put(tmp_path, "a", "a", outbox=transaction)
    relay()
    assert len(ScriptedWorker(redis).claim(10)) == 1


def test_a_cancelled_batch_takes_its_members_out_of_their_groups(one_at_once, redis, tmp_path) -> None:
    log = str(tmp_path / "log")
    batch = enqueue_batch([ProbeJob(log=log, value=number) for number in range(4)], group="a", attempts=3)
    (after,) = put(tmp_path, "a")
    worker = ScriptedWorker(redis)
    worker.finish("retry", *worker.claim(1))
    assert batch.cancel() == 4
    (job,) = worker.claim(10)
    assert job.job_id == after


def test_rqs_own_worker_runs_groups_without_limits(redis, tmp_path) -> None:
    jobs = put(tmp_path, "a", "b", "a")
    run_stock_worker(["probe"], burst=True)
    assert all(redis.hget(key("job", job), "status") == b"finished" for job in jobs)
    assert not redis.keys("rqjobs:groups:*:probe")


def test_rqs_own_worker_refuses_a_queue_that_limits_groups(one_at_once, redis) -> None:
    with pytest.raises(InvalidSettings, match="--engine rq: it cannot keep the limits of groups of probe"):
        run_stock_worker(["probe"], burst=True)
