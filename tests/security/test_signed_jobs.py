"""RQJOBS_SIGN_JOBS: what was not enqueued by a process with RQJOBS_SECRET_KEY never runs, whatever Redis holds."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from rq import Callback, Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from rqjobs import ManyChatSyncJob, WebhookJob, enqueue, enqueue_many
from rqjobs.attempt import Attempt
from rqjobs.broker.reencryption import reencrypt
from rqjobs.broker.rq_schema import encode_data, fetch_job, pack_data, sign_job
from rqjobs.config.settings import Settings
from rqjobs.database import get_engine
from rqjobs.database.schema import init_database
from rqjobs.dead_letters import letters
from rqjobs.errors import InvalidJob, InvalidSettings
from rqjobs.outbox.relay import relay
from rqjobs.processors.manychat.accounts import Account
from rqjobs.processors.manychat.merging import Group
from rqjobs.worker.run import run_worker
from tests.support.tasks import BatchTask, CoroutineTask, HeldTask, ProcessTask, Task
from tests.support.workers import Workers

KEY, OTHER = "k" * 8 + "0123456789abcdef", "o" * 8 + "0123456789abcdef"
QUEUES = {model.queue: model for model in (Task, CoroutineTask, BatchTask, ProcessTask, HeldTask)}
WHY = "not signed with RQJOBS_SECRET_KEY"

Configure = Callable[..., None]
BOTH = "tests.support.tasks tests.support.plain"
Forge = Callable[[redis_py.Redis, str, str], Any]


@pytest.fixture(autouse=True)
def signing(configure: Configure) -> None:
    configure(RQJOBS_SIGN_JOBS="true", RQJOBS_SECRET_KEY=KEY, RQJOBS_IMPORT=BOTH)


def burst(workers: Workers, *queues: str, engine: str = "threads") -> None:
    """Runs what waits: in this process, or by RQ's forking worker in another."""
    if engine == "threads":
        assert run_worker(list(queues), burst=True) == 0
    else:
        done = workers.run("worker", *queues, "--burst", "--engine", engine, RQJOBS_IMPORT=BOTH)
        assert done.returncode == 0, done.stderr


def field(redis: redis_py.Redis, job_id: str, name: str) -> str:
    return (redis.hget(f"rq:job:{job_id}", name) or b"").decode()


def status(redis: redis_py.Redis, *jobs: Job) -> list[str]:
    return [field(redis, job.id, "status") for job in jobs]


def write(name: str, value: str | bytes) -> Forge:
    return lambda redis, job_id, _queue: redis.hset(f"rq:job:{job_id}", name, value)


def take_anothers(redis: redis_py.Redis, job_id: str, _queue: str) -> None:
    other = enqueue(Task(mark="another"), delay="1h")
    redis.hset(f"rq:job:{job_id}", "signature", field(redis, other.id, "signature"))


def change_data(redis: redis_py.Redis, job_id: str, queue: str) -> None:
    redis.hset(f"rq:job:{job_id}", "data", encode_data(queue, b'{"mark":"forged"}'))


FORGERIES: dict[str, Forge] = {
    "no signature": lambda redis, job_id, _queue: redis.hdel(f"rq:job:{job_id}", "signature"),
    "an empty one": write("signature", ""),
    "no UTF-8": write("signature", b"\xff\xfe" * 30),
    "another job's": take_anothers,
    "other data": change_data,
    "deflated data": write("data", zlib.compress(encode_data("tasks", b'{"mark":"forged"}'))),
    "a pickle": write("data", b"\x80\x04N."),
    "a callback": write("success_callback_name", "tests.support.tasks.leave_a_note"),
}


@pytest.mark.parametrize("engine", ["threads", "rq"])
def test_only_signed_jobs_run(
    workers: Workers, redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, engine: str
) -> None:
    monkeypatch.setenv("TASKS_LOG", str(tmp_path / "log"))
    good = [enqueue(model(mark="good")) for name, model in QUEUES.items() if name == "tasks" or engine != "rq"]
    good.append(enqueue(Task(mark="x" * 5000, do="fail", args={"times": 1}), attempts=2, backoff="fixed:0s"))
    forged = []
    for queue, model in QUEUES.items():
        if queue != "tasks" and engine == "rq":  # which runs all of them alike, and slowly
            continue
        for forge in FORGERIES.values() if queue == "tasks" else [change_data]:
            forged.append(enqueue(model(mark="bad"), attempts=3))
            forge(redis, forged[-1].id, queue)
    burst(workers, *QUEUES, engine=engine)
    assert set(status(redis, *good)) == {"finished"}
    assert set(status(redis, *forged)) == {"failed"}
    assert redis.get("noted") is None
    assert {word.split()[0] for word in (tmp_path / "log").read_text().splitlines()} == {"good", "x" * 5000}
    reasons = {letter.reason for letter in letters.dead_letters()}
    assert len(reasons) == 1
    assert WHY in reasons.pop()
    # To requeue one changes nothing. (RQ's methods have deleted the callback: what is left is what was signed.)
    callback = forged.pop(list(FORGERIES).index("a callback"))
    letters.purge([callback.id])
    forged = forged if engine == "threads" else forged[:2]
    assert len(letters.requeue([job.id for job in forged])) == len(forged)
    burst(workers, *QUEUES, engine=engine)
    assert set(status(redis, *forged)) == {"failed"}


def test_every_way_of_enqueueing_signs(workers: Workers, redis: redis_py.Redis) -> None:
    init_database(get_engine())
    one = enqueue(Task())
    many = enqueue_many([Task(mark="x" * 2000), (CoroutineTask(), {"priority": "high"}), Task()], unique=True)
    later = enqueue(Task(), delay=timedelta(milliseconds=1))
    with get_engine().begin() as transaction:
        outbox = enqueue(Task(), outbox=transaction)
    assert relay() == 1
    jobs = [one, *many[:2], later, outbox]
    assert all(len(field(redis, job.id, "signature")) == 44 for job in jobs)
    assert len({field(redis, job.id, "signature") for job in jobs}) == 5
    burst(workers, "tasks", "coroutines")
    assert set(status(redis, *jobs)) == {"finished"}


def test_a_key_is_changed_without_losing_a_job(workers: Workers, redis: redis_py.Redis, configure: Configure) -> None:
    before = enqueue(Task())
    configure(RQJOBS_SECRET_KEY=OTHER)
    after = enqueue(Task())
    burst(workers, "tasks")
    assert status(redis, before, after) == ["failed", "finished"]
    letters.requeue([before.id])
    configure(RQJOBS_SECRET_KEY_OLD=f"something-older {KEY}")
    burst(workers, "tasks")
    assert status(redis, before) == ["finished"]


def test_an_edited_payload_is_signed_and_a_forged_one_cannot_be_edited(workers: Workers, redis: redis_py.Redis) -> None:
    mine, forged = enqueue(Task(do="dead")), enqueue(Task(do="dead"))
    change_data(redis, forged.id, "tasks")
    burst(workers, "tasks")
    letters.replace_payload(mine.id, {"do": "return"})
    letters.requeue([mine.id])
    with pytest.raises(InvalidJob, match=WHY):
        letters.replace_payload(forged.id, {"do": "return"})
    burst(workers, "tasks")
    assert status(redis, mine, forged) == ["finished", "failed"]


@pytest.mark.parametrize("engine", ["threads", "rq"])
def test_a_plain_rq_job_runs_if_the_app_has_signed_it(workers: Workers, redis: redis_py.Redis, engine: str) -> None:
    queue = Queue("tasks", connection=redis, serializer=JSONSerializer)
    options: dict[str, Any] = {"origin": "tasks", "connection": redis, "serializer": JSONSerializer}
    jobs = [Job.create("tests.support.plain.sleep", (0,), **options) for _ in range(3)]
    called = Callback("tests.support.tasks.leave_a_note")
    jobs.append(Job.create("tests.support.plain.sleep", (0,), on_success=called, **options))
    for job in (jobs[0], jobs[2], jobs[3]):
        sign_job(job)
    for job in jobs:
        queue.enqueue_job(job)
    redis.hset(jobs[2].key, "failure_callback_name", "tests.support.tasks.leave_a_note")
    burst(workers, "tasks", engine=engine)
    assert status(redis, *jobs) == ["finished", "failed", "failed", "finished"]
    assert redis.get("noted") == b"1"


def test_a_forged_change_of_a_contact_is_dropped(redis: redis_py.Redis) -> None:
    def group(job: Job, value: str) -> Group:
        fields = {"tool_id": "t", "type": "tag", "action": "update", "data": {"subscriber_id": 1, "add": [value]}}
        attempt = Attempt(job_id=job.id, queue="manychat-sync", enqueued_at=job.created_at)
        return Group(Account("t", "1:token"), ManyChatSyncJob.parse({**fields, "merge": True}), attempt)

    jobs = enqueue_many([Task(mark=str(number)) for number in range(3)])
    groups = [group(job, str(number)) for number, job in enumerate(jobs)]
    with redis.pipeline() as pipeline:
        for each in groups:
            each.join(pipeline, timedelta())
        pipeline.execute()
    forged = json.dumps({**json.loads(groups[1]._own), "data": {"subscriber_id": 1, "add": ["forged"]}})
    redis.hset(groups[0]._keys()[0], mapping={groups[1].unit: forged, groups[0].unit: forged})
    found = groups[0].take(redis)
    assert isinstance(found, list)
    assert [waiting.job.data["add"] for waiting in found] == [["0"], ["2"]]


def test_off_by_default_nothing_is_signed_and_a_key_is_needed(redis: redis_py.Redis, configure: Configure) -> None:
    configure(RQJOBS_SECRET_KEY="")
    with pytest.raises(InvalidSettings, match="RQJOBS_SIGN_JOBS: needs RQJOBS_SECRET_KEY"):
        Settings.load()
    configure(RQJOBS_SIGN_JOBS="")
    for job in (enqueue(Task()), *enqueue_many([Task(), Task()])):
        assert not redis.hexists(job.key, "signature")


def test_data_is_signed_as_it_is_before_it_is_deflated(redis: redis_py.Redis) -> None:
    """RQ deflates data anew whenever it writes a job."""
    job = enqueue(Task(mark="x" * 3000))
    stored = redis.hget(job.key, "data")
    assert stored == pack_data(zlib.decompress(stored)) != zlib.compress(zlib.decompress(stored))


def test_reencryption_signs_only_jobs_that_were_signed(redis: redis_py.Redis, configure: Configure) -> None:
    init_database(get_engine())
    webhook = WebhookJob(webhook_id="w", event="e", url="https://a.example/", payload={}, headers={"X-Key": "k"})
    good, forged = enqueue(webhook), enqueue(webhook)
    redis.hset(forged.key, "signature", "x" * 44)
    configure(RQJOBS_SECRET_KEY=OTHER, RQJOBS_SECRET_KEY_OLD=KEY)
    reencrypt(connection=redis)
    configure(RQJOBS_SECRET_KEY_OLD="")
    assert not fetch_job(good.id, redis).forged
    assert fetch_job(forged.id, redis).forged
