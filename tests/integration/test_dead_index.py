"""The index of dead letters says what reading them all says, whoever buried them or let them out."""

from __future__ import annotations

import pytest
import redis as redis_py
from rq.job import Job
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

from rqjobs import WebhookJob, enqueue, enqueue_many
from rqjobs.broker import keys
from rqjobs.broker.rq_schema import key, results_key
from rqjobs.dead_letters import bulk_requeue
from rqjobs.dead_letters import index as dead_index
from rqjobs.dead_letters import letters as dead_letters
from rqjobs.dead_letters.entries import read
from rqjobs.dead_letters.groups import look
from rqjobs.dead_letters.index import by_group, by_reason, entry, sync
from rqjobs.worker.rq_worker import run_stock_worker
from rqjobs.worker.run import run_worker
from tests.support.dashboard import dead_jobs, webhook
from tests.support.hostile import kill
from tests.support.tasks import BatchTask, CoroutineTask, ProcessTask, Task

LANE = "webhooks"
TEXTS = ("no answer", "ÄRGER ✂ Straße", "one\ntwo: worse", "x" * 20_000, "", "550 5.7.8 no", "a@b.example is gone")


def indexed(redis: redis_py.Redis, lane: str) -> dict[str, str]:
    causes = dict(redis.zrange(keys.dead_fingerprints(lane), 0, -1, withscores=True))
    reasons = dict(redis.zrange(keys.dead_reasons(lane), 0, -1, withscores=True))
    texts = {int(number): text.decode() for number, text in redis.hgetall(keys.dead_texts(lane)).items()}
    assert causes.keys() == reasons.keys()
    assert texts.keys() == set(reasons.values())
    return {
        job_id.decode(): f"{causes[job_id]:.0f} {reasons[job_id]:.0f} {texts[reasons[job_id]]}" for job_id in reasons
    }


def of_group(group_id: str, redis: redis_py.Redis) -> list[str]:
    return sorted(job_id.decode() for job_id in by_group(group_id, redis)[LANE])


def as_read(redis: redis_py.Redis, lane: str) -> dict[str, str]:
    ids = [job_id.decode() for job_id in redis.zrange(key("failed", lane), 0, -1)]
    return {found.example.job_id: entry(found.fingerprint, found.example.reason) for found in read(ids, redis)}


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RQJOBS_IMPORT", "tests.support.tasks")


@pytest.mark.parametrize("model", [Task, CoroutineTask, BatchTask, ProcessTask])
def test_workers_write_the_same_index_entries_as_reading_does(
    redis: redis_py.Redis, tasks: None, model: type[Task]
) -> None:
    enqueue_many([model(do=do, args={"text": text}) for do in ("fail", "dead") for text in TEXTS], attempts=1)
    run_worker([model.queue], burst=True)
    assert len(indexed(redis, model.queue)) == 2 * len(TEXTS)
    assert indexed(redis, model.queue) == as_read(redis, model.queue)


@pytest.mark.parametrize("run", [run_worker, run_stock_worker])
def test_a_refused_destination_is_known_by_its_group_at_once(redis, run) -> None:
    enqueue_many([WebhookJob(webhook_id="w", event="e", url=f"http://127.0.0.{n}/", payload={}) for n in (1, 1, 2)])
    run([LANE], burst=True)
    assert len(indexed(redis, LANE)) == 3
    assert indexed(redis, LANE) == as_read(redis, LANE)
    one, *_ = read([redis.zrange(key("failed", LANE), 0, 0)[0].decode()], redis)
    assert sorted(len(by_group(each, redis)[LANE]) for each in one.fingerprint.ids) in ([1, 3], [2, 3])
    assert len(by_reason("LOOPBACK", LANE, redis)[LANE]) == 3
    assert not any(by_reason("\udcff", LANE, redis).values())  # as a terminal may send it


def test_dead_letters_without_a_payload_are_indexed_too(redis: redis_py.Redis) -> None:
    jobs = [enqueue(webhook(n)) for n in range(3)]
    broken = (b"\x80pickle", b'["rqjobs.worker.entry.perform",null,["email",{}],{}]', b"[" * 100_000)
    for job, data in zip(jobs, broken, strict=True):
        redis.hset(key("job", job.id), "data", data)
    run_worker([LANE], burst=True)
    sync([LANE], redis)
    assert sorted(as_read(redis, LANE)) == sorted(job.id for job in jobs)
    assert indexed(redis, LANE) == as_read(redis, LANE)


def test_a_job_that_is_requeued_or_purged_leaves_the_index(redis: redis_py.Redis, configure) -> None:
    configure(RQJOBS_KEEP_FAILED="20")
    enqueue_many([WebhookJob(webhook_id="w", event="e", url="http://127.0.0.1/", payload={}) for _ in range(30)])
    run_worker([LANE], burst=True)
    assert len(indexed(redis, LANE)) == 20  # the others were trimmed
    ids = list(indexed(redis, LANE))
    dead_letters.requeue(ids[:5])
    dead_letters.purge(ids[5:10])
    assert sorted(indexed(redis, LANE)) == sorted(ids[10:]) == sorted(as_read(redis, LANE))


def test_changes_of_dead_letters_by_rq_are_noticed(redis: redis_py.Redis) -> None:
    jobs = [job.id for job in dead_jobs(redis, 6)]
    (group,) = {found.fingerprint.id for found in read(jobs, redis)}
    assert of_group(group, redis) == sorted(jobs)
    registry = FailedJobRegistry(LANE, connection=redis, serializer=JSONSerializer)
    registry.requeue(jobs[0])
    Job.fetch(jobs[1], connection=redis, serializer=JSONSerializer).delete()
    redis.zadd(key("failed", LANE), {jobs[2]: 1})
    registry.cleanup()
    late = enqueue(webhook(7))
    kill(late.id, LANE, "ValueError: boom", redis)
    assert of_group(group, redis) == sorted([*jobs[3:], late.id])
    assert indexed(redis, LANE) == as_read(redis, LANE)


def test_a_job_that_dies_again_with_another_error_leaves_its_group(redis: redis_py.Redis) -> None:
    """RQ's own commands requeued it and its own worker buried it: the number of entries is right, one is old."""
    jobs = [job.id for job in dead_jobs(redis, 3)]
    (group,) = {found.fingerprint.id for found in read(jobs, redis)}
    sync([LANE], redis)
    redis.delete(results_key(jobs[0]))
    kill(jobs[0], LANE, "TimeoutError: no answer", redis)
    ended = bulk_requeue.run(bulk_requeue.start(group, "t", "purge", connection=redis), redis)
    assert ended.message == "2 jobs were deleted"
    assert dead_letters.dead_ids(LANE, "boom") == []
    assert dead_letters.dead_ids(LANE) == [jobs[0]]


def test_an_edited_job_is_in_the_group_of_its_new_destination(redis: redis_py.Redis) -> None:
    jobs = [job.id for job in dead_jobs(redis, 2)]
    (before,) = {found.fingerprint.id for found in read(jobs, redis)}
    sync([LANE], redis)
    dead_letters.replace_payload(jobs[0], webhook(1, host="other.example").model_dump(by_alias=True))
    (after,) = {found.fingerprint.id for found in read(jobs[:1], redis)}
    assert of_group(before, redis) == [jobs[1]]
    assert of_group(after, redis) == [jobs[0]]


def test_those_that_died_first_are_the_first(redis: redis_py.Redis) -> None:
    jobs = [enqueue(webhook(n)).id for n in range(30)]
    for number, job_id in enumerate(jobs):
        kill(job_id, LANE, "ValueError: boom", redis, ago=1000 - number)
    assert dead_letters.dead_ids(LANE, "boom") == dead_letters.dead_ids(LANE) == jobs


@pytest.mark.parametrize("run_worker", [run_worker, run_stock_worker])
def test_an_index_of_another_type_stops_no_job(redis, run_worker) -> None:
    def break_it() -> None:
        redis.set(keys.dead_fingerprints(LANE), "x")
        redis.set(keys.dead_reasons(LANE), "x")
        redis.set(keys.dead_texts(LANE), "x")

    break_it()
    job = enqueue(WebhookJob(webhook_id="w", event="e", url="http://127.0.0.1/", payload={}))
    run_worker([LANE], burst=True)
    assert dead_letters.requeue([job.id]) == [job.id]
    run_worker([LANE], burst=True)
    assert dead_letters.dead_ids(LANE, "loopback") == [job.id]
    assert indexed(redis, LANE) == as_read(redis, LANE)
    break_it()
    assert dead_letters.purge([job.id]) == [job.id]


def test_reasons_that_differ_from_job_to_job_are_found(redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_index, "_MANY", 5)
    jobs = [enqueue(webhook(n)).id for n in range(12)]
    for number, job_id in enumerate(jobs):
        kill(job_id, LANE, f"ValueError: no user {number}", redis, ago=100 - number)
    assert dead_letters.dead_ids(LANE, "NO USER") == jobs
    assert dead_letters.dead_ids(LANE, "user 1") == [jobs[1], *jobs[10:]]
    dead_letters.purge(jobs[:9])
    assert len(indexed(redis, LANE)) == redis.hlen(keys.dead_texts(LANE)) == 3


def test_a_destination_that_is_a_star_is_not_every_destination(redis: redis_py.Redis) -> None:
    for host in ("*", "a.example", "b.example"):
        job = enqueue(webhook(1, host=host))
        kill(job.id, LANE, "ValueError: boom", redis)
    star = next(group for group in look().groups if group.count == 1 and "*" in group.fingerprint.destination)
    ended = bulk_requeue.run(bulk_requeue.start(star.fingerprint.id, "t", "purge", connection=redis), redis)
    assert ended.message == "1 jobs were deleted"


def test_a_dead_job_that_is_enqueued_again_leaves_the_index(redis: redis_py.Redis) -> None:
    job_id = enqueue(WebhookJob(webhook_id="w", event="e", url="http://127.0.0.1/", payload={}), job_id="a").id
    run_worker([LANE], burst=True)
    assert list(indexed(redis, LANE)) == [job_id]
    enqueue(webhook(2), job_id="a")
    assert indexed(redis, LANE) == {}


def test_a_broken_dead_letter_hides_no_other(redis: redis_py.Redis) -> None:
    jobs = [job.id for job in dead_jobs(redis, 4)]
    redis.delete(key("job", jobs[0]))
    redis.set(key("job", jobs[0]), "x")
    redis.hset(key("job", jobs[1]), "description", b"\xff")
    redis.zadd(key("failed", LANE), {b"\xff\xfe": 1e10})
    assert sorted(dead_letters.dead_ids(LANE, "boom")) == sorted(jobs[1:])
    assert sorted(dead_letters.purge(dead_letters.dead_ids(LANE, "boom"))) == sorted(jobs[1:])


@pytest.mark.parametrize("how", ["deleted", "another type"])
def test_lost_texts_are_read_again(redis: redis_py.Redis, how: str) -> None:
    jobs = [job.id for job in dead_jobs(redis, 3)]
    sync([LANE], redis)
    redis.delete(keys.dead_texts(LANE))
    if how != "deleted":
        redis.set(keys.dead_texts(LANE), "x")
    assert sorted(dead_letters.dead_ids(LANE, "boom")) == sorted(jobs)


def test_the_upkeep_compares_each_id(redis: redis_py.Redis) -> None:
    """As many entries as dead letters, and one of another job: what RQ's own commands may leave."""
    jobs = [job.id for job in dead_jobs(redis, 2)]
    sync([LANE], redis)
    FailedJobRegistry(LANE, connection=redis, serializer=JSONSerializer).requeue(jobs[0])
    late = enqueue(webhook(7))
    kill(late.id, LANE, "ValueError: boom", redis)
    sync([LANE], redis, upkeep=True)
    assert sorted(indexed(redis, LANE)) == sorted([jobs[1], late.id])
