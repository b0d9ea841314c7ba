"""Enqueueing into a real Redis, read back by RQ itself."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import pytest
import redis as redis_py
from rq import Queue
from rq.job import Job
from rq.registry import ScheduledJobRegistry
from rq.serializers import JSONSerializer

from rqjobs import (
    DuplicateJob,
    EmailJob,
    InvalidJob,
    QRAnalyticsJob,
    WebhookJob,
    enqueue,
    enqueue_many,
    enqueue_webhook,
    fixed,
    schedule,
)
from rqjobs.broker.connection import connect, get_connection
from rqjobs.broker.rq_schema import fetch_job

HOOK = WebhookJob(webhook_id="wh_1", event="qr.scanned", url="https://api.example.com/hook", payload={"a": "ä"})


def rq_job(job_id, redis):
    return Job.fetch(job_id, connection=redis, serializer=JSONSerializer)


def test_rq_can_read_our_jobs(redis):
    ours = enqueue_webhook(HOOK, attempts=4, timeout="7s")
    theirs = rq_job(ours.id, redis)
    assert Queue("webhooks", connection=redis).job_ids == [ours.id]
    assert theirs.args == ["webhooks", HOOK.dump()]
    assert (theirs.retries_left, theirs.retry_intervals, theirs.timeout) == (3, [2, 4, 8], 7)
    assert (theirs.origin, theirs.get_status()) == ("webhooks", "queued")
    assert abs(theirs.created_at - datetime.now(UTC)) < timedelta(seconds=30)
    for name in ("id", "origin", "args", "description", "retries_left", "retry_intervals", "created_at", "timeout"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.enqueued_at == fetch_job(ours.id, redis).enqueued_at == theirs.created_at


def test_a_job_of_many_bytes_is_kept_in_few(redis):
    long = HOOK.model_copy(update={"payload": {"text": "the same words, " * 200}})
    job = enqueue_webhook(long)
    assert redis.hstrlen(job.key, "data") < len(job.data) / 10
    assert redis.object("encoding", job.key) == b"listpack"
    assert rq_job(job.id, redis).args == fetch_job(job.id, redis).args == ["webhooks", long.dump()]


def test_the_description_has_neither_payload_nor_address(redis):
    mail = EmailJob(to="ada@example.com", subject="s", template="welcome", data={"code": "s3cret"})
    assert rq_job(enqueue_many([mail])[0].id, redis).description == "email welcome"


def test_a_delay_is_exact_in_the_scheduled_registry(redis):
    before = datetime.now(UTC).timestamp()
    job = enqueue_webhook(HOOK, delay=timedelta(seconds=1.5), priority="low")
    score = redis.zscore(ScheduledJobRegistry("webhooks:low", connection=redis).key, job.id)
    assert 1.5 <= score - before < 10
    assert job.get_status() == "scheduled"
    assert Queue("webhooks:low", connection=redis).count == 0


def test_one_round_trip_for_any_mix(redis):
    scans = [QRAnalyticsJob(qr_code_id=f"q{i}", event="scan", data={}) for i in range(1200)]
    jobs = enqueue_many([HOOK, *scans, (HOOK, {"priority": "high", "attempts": 1})], backoff=fixed("1s"))
    assert len({job.id for job in jobs}) == 1202
    assert Queue("qr-analytics", connection=redis).job_ids == [job.id for job in jobs[1:-1]]
    assert Queue("webhooks:high", connection=redis).job_ids == [jobs[-1].id]
    assert rq_job(jobs[0].id, redis).retry_intervals == [1, 1]
    assert rq_job(jobs[-1].id, redis).retries_left is None
    assert Queue.all(connection=redis)
    assert enqueue_many([]) == []


def test_a_job_alone_is_written_as_one_of_many(redis):
    alone = enqueue_webhook(HOOK)
    first, second = enqueue_many([HOOK, HOOK])
    assert Queue("webhooks", connection=redis).job_ids == [alone.id, first.id, second.id]
    one, many = redis.hgetall(alone.key), redis.hgetall(first.key)
    assert one.pop(b"created_at") < many.pop(b"created_at")
    for fields in (one, many):
        _time, fields[b"destination"] = fields[b"destination"].split(b"\n", 1)
    assert one == many
    redis.flushdb()
    enqueue_webhook(HOOK)
    assert redis.smembers("rq:queues") == {b"rq:queue:webhooks"}


def test_bad_options_are_named_and_nothing_reaches_redis(redis):
    with pytest.raises(InvalidJob) as caught:
        enqueue_webhook(HOOK, attempts=0, backoff="linear", delay="soon", priority="urgent", job_id="a b")  # type: ignore[arg-type]
    assert len(caught.value.faults) == 5
    big = WebhookJob(webhook_id="w", event="e", url="https://e.example", payload={"x": "y" * 300_000})
    with pytest.raises(InvalidJob, match="RQJOBS_MAX_PAYLOAD"):
        enqueue_many([HOOK, big])
    assert redis.keys("rq:*") == []


@pytest.mark.parametrize("name", ["delay", "timeout"])
@pytest.mark.parametrize("number", [3600000, 2.5, "3600000", " 7 ", 0])
def test_a_number_without_a_unit_is_refused_as_delay_and_timeout(redis, name, number):
    with pytest.raises(InvalidJob, match=f'{name}: .* is a bare number; write "[0-9.]+s" or timedelta'):
        enqueue_webhook(HOOK, **{name: number})
    assert redis.keys("rq:*") == []


def test_an_option_that_there_is_not_is_named_and_nothing_reaches_redis(redis):
    with pytest.raises(InvalidJob) as caught:
        enqueue_webhook(HOOK, attempt=5, prioirty="high", nothing_like_it=1)  # type: ignore[call-arg]
    assert caught.value.faults == (
        "unknown option 'attempt', did you mean 'attempts'?",
        "unknown option 'prioirty', did you mean 'priority'?",
        "unknown option 'nothing_like_it'",
    )
    with pytest.raises(InvalidJob, match="unknown option 'dealy', did you mean 'delay'"):
        enqueue_many([HOOK, (HOOK, {"dealy": "1h"})])  # type: ignore[typeddict-unknown-key]
    assert redis.keys("rq:*") == []


@pytest.mark.parametrize("name", ["connection", "on_commit", "outbox"])
def test_one_job_of_many_is_not_written_elsewhere(redis, name):
    with pytest.raises(InvalidJob, match=f"{name}: is for all jobs of the call"):
        enqueue_many([HOOK, (HOOK, {name: redis})])  # type: ignore[misc]
    assert redis.keys("rq:*") == []


def test_a_dict_without_a_queue_is_refused(redis):
    fields = {"webhookId": "w", "event": "e", "url": "https://e.example", "payload": {}}
    for call in (lambda: enqueue(fields), lambda: enqueue_many([HOOK, fields])):  # type: ignore[arg-type, list-item]
        with pytest.raises(InvalidJob, match=r"a job model, .*, is needed: WebhookJob"):
            call()
    assert redis.keys("rq:*") == []


def test_an_id_is_never_enqueued_twice_at_once(redis):
    def enqueue(_):
        try:
            return enqueue_webhook(HOOK, job_id="order-1", unique=True).id
        except DuplicateJob as error:
            return error.job_ids

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(enqueue, range(40)))
    assert answers.count("order-1") == 1
    assert answers.count(("order-1",)) == 39
    assert Queue("webhooks", connection=redis).job_ids == ["order-1"]


def test_an_id_is_never_enqueued_twice_in_one_call(redis):
    with pytest.raises(DuplicateJob) as caught:
        enqueue_many([(HOOK, {"job_id": "a"}), (HOOK, {"job_id": "b"}), (HOOK, {"job_id": "a"})])
    assert caught.value.job_ids == ("a",)
    assert Queue("webhooks", connection=redis).job_ids == ["a", "b"]


def test_unique_without_an_id_goes_by_content(redis):
    first = enqueue_webhook(HOOK, unique=True)
    with pytest.raises(DuplicateJob, match=first.id):
        enqueue_webhook(HOOK, unique=True)
    enqueue_webhook(HOOK.model_copy(update={"event": "qr.other"}), unique=True)
    assert Queue("webhooks", connection=redis).count == 2


def test_the_id_of_an_ended_job_can_be_used_again(redis):
    enqueue_webhook(HOOK, job_id="again")
    Queue("webhooks", connection=redis).empty()
    rq_job_again = enqueue_webhook(HOOK, job_id="again")
    redis.hset("rq:job:again", "status", "failed")
    redis.delete("rq:queue:webhooks")
    redis.zadd("rq:failed:webhooks", {"again": 1})
    assert enqueue_webhook(HOOK, job_id="again").id == rq_job_again.id
    assert redis.zcard("rq:failed:webhooks") == 0


def test_threads_share_one_connection_safely(redis):
    barrier = threading.Barrier(8)

    def work(_):
        barrier.wait()
        return [enqueue_webhook(HOOK).id for _ in range(25)]

    with ThreadPoolExecutor(8) as pool:
        ids = {job_id for batch in pool.map(work, range(8)) for job_id in batch}
    assert len(ids) == 200
    assert set(Queue("webhooks", connection=redis).job_ids) == ids


@pytest.mark.parametrize("ours", [True, False], ids=["our-connection", "theirs"])
def test_a_call_that_is_sent_again_raises_no_duplicate_error(ours, redis, monkeypatch):
    """An answer that is lost on its way makes us, or redis-py, send the call once more."""
    enqueue_webhook(HOOK)
    redis.flushdb()
    client = get_connection() if ours else connect()
    real, lost = client.connection_pool.connection_class.read_response, [True]

    def lose_the_first_answer(self, *args, **kwargs):
        answer = real(self, *args, **kwargs)
        if lost and answer in (1, []):  # what our scripts answer
            lost.clear()
            raise redis_py.exceptions.ConnectionError("the answer was lost")
        return answer

    monkeypatch.setattr(client.connection_pool.connection_class, "read_response", lose_the_first_answer)
    job = enqueue_webhook(HOOK, connection=None if ours else client)
    assert not lost
    assert Queue("webhooks", connection=redis).job_ids == [job.id]
    if not ours:
        client.close()


def test_closed_connections_are_opened_again(redis):
    enqueue_webhook(HOOK)
    redis.client_kill_filter(_type="normal", skipme=True)
    ids = [enqueue_webhook(HOOK).id for _ in range(3)]
    assert Queue("webhooks", connection=redis).job_ids[1:] == ids


def test_an_interrupted_call_leaves_no_answer_for_the_next(redis, monkeypatch):
    enqueue_webhook(HOOK, job_id="first")
    kind = get_connection().connection_pool.connection_class
    with monkeypatch.context() as patched:
        patched.setattr(kind, "read_response", lambda *_args, **_options: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            enqueue_webhook(HOOK, job_id="first")  # the answer is on its way: it is there already
    enqueue_webhook(HOOK, job_id="second")
    assert Queue("webhooks", connection=redis).job_ids == ["first", "second"]


def test_at_is_an_instant_by_redis_clock(redis):
    moment = datetime(2030, 1, 31, 9, 0, tzinfo=timezone(timedelta(hours=1)))
    job = enqueue_webhook(HOOK, at=moment)
    assert job.get_status() == rq_job(job.id, redis).get_status() == "scheduled"
    assert abs(redis.zscore("rq:scheduled:webhooks", job.id) - moment.timestamp()) < 0.001


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"at": datetime(2030, 1, 1)}, "at: .*time zone"),  # noqa: DTZ001
        ({"at": "2030-01-01T00:00Z"}, "at: .*time zone"),
        ({"at": datetime(2030, 1, 1, tzinfo=UTC), "delay": "1h"}, "at: excludes delay"),
        ({"at": datetime(9000, 1, 1, tzinfo=UTC)}, "more than ten years"),
    ],
)
def test_an_invalid_time_is_refused(redis, options, fault):
    with pytest.raises(InvalidJob, match=fault):
        enqueue_webhook(HOOK, **options)
    assert redis.keys("rq:*") == []


def test_the_attempts_of_a_schedule_follow_from_its_length(redis, configure):
    def waits(**options):
        job = rq_job(enqueue_webhook(HOOK, **options).id, redis)
        return job.retries_left, job.retry_intervals

    assert waits(backoff=schedule("5s", "5m")) == (2, [5, 300])
    assert waits(backoff="schedule:5s,5m", attempts=2) == (1, [5])
    assert waits(backoff="standard")[0] == 9
    configure(RQJOBS_WEBHOOKS_BACKOFF="schedule:1s,2s,3s,4s")
    assert waits() == (4, [1, 2, 3, 4])
    configure(RQJOBS_WEBHOOKS_BACKOFF="schedule:1s,2s,3s,4s", RQJOBS_WEBHOOKS_ATTEMPTS="2")
    assert waits() == (1, [1])
