"""Secrets in the database and in Redis: encrypted, bound to their place, readable through a change of the key."""

from __future__ import annotations

import asyncio
import json
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from click.testing import CliRunner
from sqlalchemy import select, text, update

from rqjobs import WebhookJob, enqueue, enqueue_chain
from rqjobs.attempt import Attempt
from rqjobs.broker import keys
from rqjobs.broker.reencryption import reencrypt
from rqjobs.broker.rq_schema import SERIALIZER, decode_data, encode_data
from rqjobs.cli import cli
from rqjobs.config.encryption import PREFIX, UnreadableSecret, is_encrypted, key_names, keyring
from rqjobs.config.settings import use_settings
from rqjobs.database import get_engine
from rqjobs.database.outbox import outbox
from rqjobs.database.schema import init_database
from rqjobs.database.webhook_endpoints import add_endpoint, find_endpoints, list_endpoints, rotate_secret
from rqjobs.database.webhook_tables import deliveries, endpoints
from rqjobs.dead_letters.letters import dead_letter, replace_payload, requeue
from rqjobs.jobs.at_rest import decrypt_job
from rqjobs.monitoring.doctor.secrets import at_rest
from rqjobs.outbox.relay import relay
from rqjobs.processors import webhook
from rqjobs.security.masking import MASK
from rqjobs.security.signing import verify
from rqjobs.testing import capture
from rqjobs.webhooks import Filter, replay
from rqjobs.worker.rq_worker import StockWorker
from tests.support.hostile import kill
from tests.support.receiver import Receiver, receiving

OLD, NEW = "the key of last year, long", "the key of this year, long"
TOKEN = "Bearer correct-horse-battery-staple"
HEADERS = {"Authorization": TOKEN, "X-Api-Key": "another secret 4711"}

Configure = Callable[..., None]


@pytest.fixture
def receiver(redis: redis_py.Redis, configure: Configure) -> Iterator[Receiver]:
    configure(WEBHOOK_ALLOW="127.0.0.1", RQJOBS_SECRET_KEY=OLD)
    init_database(get_engine())
    with receiving() as running:
        yield running


def job(url: str = "https://a.example/", **fields: Any) -> WebhookJob:
    return WebhookJob(webhook_id="w", event="a.b", url=url, payload={"n": 1}, headers=HEADERS, **fields)


def in_redis(redis: redis_py.Redis) -> bytes:
    """Everything that Redis holds, deflated data as it is and inflated."""
    found = [redis.dump(name) or b"" for name in redis.scan_iter()]
    for name in redis.scan_iter("rq:job:*"):
        data = redis.hget(name, "data") or b""
        found.append(zlib.decompress(data) if data[:1] == b"x" else data)
    return b"\n".join(found)


def in_database() -> str:
    """Every row of the tables that hold secrets."""
    with get_engine().connect() as connection:
        rows = [connection.execute(select(table)).all() for table in (endpoints, deliveries, outbox)]
    return repr(rows)


def stored(redis: redis_py.Redis, job_id: str) -> WebhookJob:
    return WebhookJob.parse(decode_data(redis.hget(f"rq:job:{job_id}", "data") or b""))


def deliver(work: WebhookJob, job_id: str) -> object:
    return asyncio.run(webhook.deliver(work, Attempt(job_id=job_id, queue="webhooks", number=1, of=1)))


def test_headers_are_in_clear_nowhere_and_reach_the_receiver(redis: redis_py.Redis, receiver: Receiver) -> None:
    queued = enqueue(job(receiver.url()))
    kept = stored(redis, queued.id)
    assert all(map(is_encrypted, kept.headers.values()))
    deliver(kept, queued.id)
    (request,) = receiver.wait_for(1)
    assert {name: request.headers[name.lower()] for name in HEADERS} == HEADERS
    for secret in HEADERS.values():
        assert secret.encode() not in in_redis(redis)
        assert secret not in in_database()


def test_a_worker_delivers_with_decrypted_headers(redis: redis_py.Redis, receiver: Receiver, workers: Any) -> None:
    enqueue(job(receiver.url()))
    assert (
        workers.run("worker", "webhooks", "--burst", RQJOBS_SECRET_KEY=OLD, WEBHOOK_ALLOW="127.0.0.1").returncode == 0
    )
    (request,) = receiver.wait_for(1)
    assert request.headers["authorization"] == TOKEN
    assert TOKEN not in in_database()


def test_a_job_of_the_version_before_runs_and_is_encrypted_in_the_log(receiver: Receiver) -> None:
    deliver(job(receiver.url()), "from-before")
    assert receiver.wait_for(1)[0].headers["authorization"] == TOKEN
    assert TOKEN not in in_database()


def test_endpoint_secrets_are_in_clear_nowhere_and_sign(database_url: str, receiver: Receiver) -> None:
    init_database(get_engine())
    _, first = add_endpoint(get_engine(), "shop", receiver.url())
    second = rotate_secret(get_engine(), "shop")
    assert first not in in_database()
    assert second not in in_database()
    deliver(WebhookJob(webhook_id="w", event="a.b", url=receiver.url(), payload={}, endpoint="shop"), "one")
    (request,) = receiver.wait_for(1)
    for secret in (first, second):
        verify(secret, request.headers, request.body, now=time.time())
    assert find_endpoints(get_engine(), ["shop"])["shop"].secrets == (second, first)


def test_a_secret_kept_in_clear_still_signs(receiver: Receiver) -> None:
    _, secret = add_endpoint(get_engine(), "shop", receiver.url())
    with get_engine().begin() as connection:
        connection.execute(update(endpoints).values(secret=secret))
    deliver(WebhookJob(webhook_id="w", event="a.b", url=receiver.url(), payload={}, endpoint="shop"), "one")
    (request,) = receiver.wait_for(1)
    verify(secret, request.headers, request.body, now=time.time())


@pytest.mark.parametrize("change", [{"url": "https://thief.example/"}, {"endpoint": "thief"}])
def test_a_header_moved_to_another_destination_or_job_is_not_decrypted(
    redis: redis_py.Redis, receiver: Receiver, change: dict[str, str]
) -> None:
    queued = enqueue(job())
    kept = stored(redis, queued.id)
    with pytest.raises(UnreadableSecret, match="belongs to another"):
        decrypt_job(kept.model_copy(update=change), queued.id)
    with pytest.raises(UnreadableSecret, match="belongs to another"):
        decrypt_job(kept, "another-id")
    swapped = dict(zip(kept.headers, reversed(kept.headers.values()), strict=True))
    with pytest.raises(UnreadableSecret, match="belongs to another"):
        decrypt_job(kept.model_copy(update={"headers": swapped}), queued.id)


def test_an_endpoints_secret_moved_to_another_endpoint_signs_nothing(receiver: Receiver) -> None:
    add_endpoint(get_engine(), "shop", receiver.url())
    add_endpoint(get_engine(), "thief", receiver.url())
    with get_engine().begin() as connection:
        connection.execute(text("UPDATE rqjobs_webhook_endpoints SET secret = (SELECT secret FROM "
                                "rqjobs_webhook_endpoints WHERE name = 'shop') WHERE name = 'thief'"))  # fmt: skip
    with pytest.raises(UnreadableSecret, match="'thief'"):
        deliver(WebhookJob(webhook_id="w", event="a.b", url=receiver.url(), payload={}, endpoint="thief"), "one")
    assert not receiver.requests


def test_without_the_key_one_job_is_dead_with_the_fix_and_the_others_are_done(
    redis: redis_py.Redis, receiver: Receiver, workers: Any
) -> None:
    bad, good = (
        enqueue(job(receiver.url("/bad"))),
        WebhookJob(webhook_id="w", event="a.b", url=receiver.url("/good"), payload={}),
    )
    enqueue(good)
    workers.run("worker", "webhooks", "--burst", RQJOBS_SECRET_KEY=NEW)
    assert [request.path for request in receiver.wait_for(1)] == ["/good"]
    reason = dead_letter(bad.id).reason
    assert "RQJOBS_SECRET_KEY_OLD" in reason
    assert "Authorization" in reason
    # With both keys it runs as it is.
    requeue([bad.id])
    keys = {"RQJOBS_SECRET_KEY": NEW, "RQJOBS_SECRET_KEY_OLD": OLD}
    workers.run("worker", "webhooks", "--burst", **keys)
    assert receiver.wait_for(2)[1].headers["authorization"] == TOKEN


def test_an_endpoint_with_an_unreadable_secret_is_listed_and_no_other_key_signs(
    receiver: Receiver, configure: Configure
) -> None:
    add_endpoint(get_engine(), "shop", receiver.url())
    configure(RQJOBS_SECRET_KEY=NEW, WEBHOOK_SIGNING_SECRET="whsec_" + "A" * 44)
    assert [endpoint.name for endpoint in list_endpoints(get_engine())] == ["shop"]
    with pytest.raises(UnreadableSecret, match="RQJOBS_SECRET_KEY_OLD"):
        deliver(WebhookJob(webhook_id="w", event="a.b", url=receiver.url(), payload={}, endpoint="shop"), "one")
    assert not receiver.requests
    rotate_secret(get_engine(), "shop")  # a new one works, whatever was before


def test_reencryption_reaches_every_place_and_the_old_key_is_not_needed_any_more(
    database_url: str, redis: redis_py.Redis, receiver: Receiver, configure: Configure
) -> None:
    init_database(get_engine())
    engine = get_engine()
    waiting, delayed, dead = enqueue(job()), enqueue(job(), delay="1h"), enqueue(job())
    kill(dead.id, "webhooks", "ValueError: no", redis)
    deliver(job(receiver.url()), "logged")
    with engine.begin() as connection:
        held = enqueue(job(), outbox=connection)
        chain = enqueue_chain([job(), job()], outbox=connection)
    _, first = add_endpoint(engine, "shop", receiver.url())
    second = rotate_secret(engine, "shop")
    with engine.begin() as connection:  # one from before the encryption
        values = {"name": "old", "url": "https://b.example/", "url_key": "b", "events": ["*"], "secret": first}
        connection.execute(endpoints.insert().values(enabled=True, created_ms=0, **values))
    clear = enqueue(job())
    redis.hset(f"rq:job:{clear.id}", "data", encode_data("webhooks", job().dump_json()))
    configure(RQJOBS_SECRET_KEY=NEW, RQJOBS_SECRET_KEY_OLD=OLD)
    before = in_redis(redis), in_database()
    expected = {"outbox": 3, "jobs": 4, "deliveries": 1, "endpoints": 2}
    assert {area.name: area.changed for area in reencrypt(dry_run=True)} == expected
    assert before == (in_redis(redis), in_database())
    assert {area.name: area.changed for area in reencrypt()} == expected
    again = reencrypt()
    assert {area.name: area.current for area in again} == expected
    assert not any(area.changed or area.unreadable or area.clear for area in again)
    configure(RQJOBS_SECRET_KEY_OLD="")
    relay()
    links = [member.decode() for member in redis.smembers(keys.batch(chain.id) + ":open")]
    assert len(links) == 2
    for job_id in (waiting.id, delayed.id, dead.id, held.id, clear.id, *links):
        assert decrypt_job(stored(redis, job_id), job_id).headers == HEADERS
    assert find_endpoints(engine, ["shop"])["shop"].secrets == (second, first)
    assert find_endpoints(engine, ["old"])["old"].secrets == (first,)
    with engine.connect() as connection:
        logged = WebhookJob.parse(json.loads(connection.execute(select(deliveries.c.job)).scalar_one()))
    assert decrypt_job(logged, "logged").headers == HEADERS
    assert TOKEN.encode() not in in_redis(redis)
    assert first not in in_database()


def test_reencryption_without_the_old_key_changes_nothing_and_reports_it(
    redis: redis_py.Redis, receiver: Receiver, configure: Configure
) -> None:
    enqueue(job())
    before = in_redis(redis)
    configure(RQJOBS_SECRET_KEY=NEW)
    done = CliRunner().invoke(cli, ["db", "reencrypt"], standalone_mode=False)
    assert done.return_value == 1
    assert "RQJOBS_SECRET_KEY_OLD" in done.output
    assert in_redis(redis) == before
    told = CliRunner().invoke(cli, ["db", "reencrypt", "--json", "--dry-run"], standalone_mode=False)
    assert [area["unreadable"] for area in json.loads(told.output)["areas"]] == [0, 1, 0, 0]


def test_a_replay_carries_the_headers_along(redis: redis_py.Redis, receiver: Receiver) -> None:
    queued = enqueue(job(receiver.url()))
    deliver(stored(redis, queued.id), queued.id)
    redis.flushall()
    assert replay(Filter(job_id=queued.id), delivered_too=True).enqueued == [queued.id]
    assert decrypt_job(stored(redis, queued.id), queued.id).headers == HEADERS


def test_an_edited_job_keeps_its_headers_for_another_url(redis: redis_py.Redis, receiver: Receiver) -> None:
    dead = enqueue(job())
    kill(dead.id, "webhooks", "ValueError: no", redis)
    shown = dead_letter(dead.id).payload or {}
    assert shown["headers"] == dict.fromkeys(HEADERS, MASK)
    replace_payload(dead.id, {**shown, "url": "https://right.example/"})
    kept = stored(redis, dead.id)
    assert all(map(is_encrypted, kept.headers.values()))
    assert decrypt_job(kept, dead.id).headers == HEADERS


def test_a_text_that_only_looks_encrypted_fails_only_its_job(receiver: Receiver) -> None:
    for value in (PREFIX, PREFIX + "x:y", PREFIX + "00000000:AAAA", f"{keyring().names[0]}"):
        work = WebhookJob(webhook_id="w", event="a.b", url=receiver.url(), payload={}, headers={"X-A": value})
        try:
            deliver(work, "one")
        except UnreadableSecret:
            assert is_encrypted(value)
        else:
            assert receiver.requests[-1].headers["x-a"] == value


def test_captured_jobs_of_a_test_are_in_clear(configure: Configure) -> None:
    configure(RQJOBS_SECRET_KEY=OLD)
    with capture() as captured:
        enqueue(job())
    captured.assert_enqueued(WebhookJob, headers=HEADERS)


@pytest.mark.parametrize(
    ("variables", "stores"),
    [
        ({"RQJOBS_SECRET_KEY": OLD, "DATABASE_URL": "postgresql://db.example/x", "REDIS_URL": "redis://r.example"}, 2),
        ({"DATABASE_URL": "sqlite:///x.db", "REDIS_URL": "embedded:"}, 2),
        ({"DATABASE_URL": "postgresql:///x?host=/run/pg", "REDIS_URL": "unix:///run/redis.sock"}, 2),
        ({"DATABASE_URL": "postgresql://u:p@localhost/x", "REDIS_URL": "redis://:p@127.0.0.1:6379/1"}, 2),
        ({"DATABASE_URL": "postgresql://db.example/x", "REDIS_URL": "redis://r.example"}, 0),
        ({"DATABASE_URL": "postgresql:///x?host=db.example", "REDIS_URL": "redis+sentinel://127.0.0.1,b.example/m"}, 0),
    ],
)
def test_a_generated_key_encrypts_only_secrets_on_this_machine(
    configure: Configure, variables: dict[str, str], stores: int
) -> None:
    configure(**variables)
    assert len(keyring().stores) == stores


def test_setting_the_key_for_the_first_time_loses_nothing(redis: redis_py.Redis, configure: Configure) -> None:
    queued = enqueue(job())
    assert TOKEN.encode() not in in_redis(redis)
    configure(RQJOBS_SECRET_KEY=NEW)
    assert decrypt_job(stored(redis, queued.id), queued.id).headers == HEADERS


def test_jobs_without_headers_derive_no_key(redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    use_settings(None)
    monkeypatch.setattr("rqjobs.jobs.at_rest.keyring", lambda: pytest.fail("a key was needed"))
    queued = enqueue(WebhookJob(webhook_id="w", event="a.b", url="https://a.example/", payload={}))
    assert decrypt_job(stored(redis, queued.id), queued.id).headers == {}


def findings(redis: redis_py.Redis) -> list[str]:
    return [f"{finding.said}: {finding.fix}" for finding in at_rest(redis)]


def test_the_doctor_finds_a_worker_and_endpoints_without_the_key(
    redis: redis_py.Redis, receiver: Receiver, configure: Configure
) -> None:
    add_endpoint(get_engine(), "shop", receiver.url())
    worker = StockWorker(["webhooks"], connection=redis, serializer=SERIALIZER)
    worker.register_birth()
    assert findings(redis) == []
    configure(RQJOBS_SECRET_KEY=NEW)
    of_worker, of_endpoint = findings(redis)
    assert worker.name in of_worker
    assert "RQJOBS_SECRET_KEY_OLD" in of_worker
    assert "'shop'" in of_endpoint
    configure(RQJOBS_SECRET_KEY_OLD=OLD)
    assert len(findings(redis)) == 1  # the worker has the old one only
    worker.register_death()


def test_a_worker_that_started_before_the_key_was_made_is_no_fault(
    redis: redis_py.Redis, configure: Configure, tmp_path: Path
) -> None:
    """As in the README: the worker starts in an empty folder, and doctor makes the key."""
    configure(RQJOBS_DATA=str(tmp_path / "data"))
    init_database(get_engine())
    worker = StockWorker(["webhooks"], connection=redis, serializer=SERIALIZER)
    worker.register_birth()
    assert key_names() == []
    add_endpoint(get_engine(), "shop", "https://example.com/hook")  # its secret is encrypted, by a new key
    assert key_names()
    assert [finding for finding in findings(redis) if "cannot decrypt" in finding] == []
    worker.register_death()


def test_doctor_reports_unencrypted_secrets(redis: redis_py.Redis, configure: Configure) -> None:
    configure(DATABASE_URL="postgresql://db.example.invalid/x")
    assert any("database are in clear" in found for found in findings(redis))
