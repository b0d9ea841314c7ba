"""Mails while workers are killed at random: none missing, and doubled only where that was chosen."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis as redis_py

from rqjobs import enqueue_email, enqueue_many
from rqjobs.broker import keys
from rqjobs.broker.rq_schema import fetch_job, key
from rqjobs.dead_letters import letters as dead_letters
from rqjobs.jobs import EmailJob
from rqjobs.testing.sandbox.mail import MailAPI, Script
from tests.support.smtp import MailServer, smtp_server
from tests.support.workers import Workers, eventually

WORKER = ("email", "--threads", "6")
LONG = pytest.param((1000, 25, 2), id="long", marks=pytest.mark.slow)
FORMS = [pytest.param((40, 1, 1), id="short"), LONG]
"""Mails, killings, workers at once. A worker's start is what costs time here."""


@pytest.fixture
def configure(configure: Callable[..., None], redis) -> Callable[..., None]:
    configure(
        EMAIL_FROM="Shop <shop@shop.example>",
        RQJOBS_LEASE="2s",
        RQJOBS_KEEP_COMPLETED="20000",
        RQJOBS_KEEP_FAILED="20000",
    )
    return configure


@pytest.fixture
def server(tmp_path: Path, configure: Callable[..., None]) -> Iterator[MailServer]:
    with smtp_server(tmp_path, starttls=False) as running:
        running.pause = 0.3
        configure(EMAIL_BACKEND="smtp", SMTP_URL=f"smtp://localhost:{running.port}")
        yield running


def send_with_killings(redis: redis_py.Redis, form: tuple[int, int, int], folder: Path) -> list[str]:
    """Enqueues the mails, or more, and kills a random worker again and again; answers the ids when all have ended."""
    mails, kills, workers = form
    ids: list[str] = []

    def enqueue(number: int) -> None:
        jobs = [
            EmailJob(to=f"p{n}@a.example", subject=f"Mail {n}", template="welcome", data={"name": str(n)})
            for n in range(len(ids), len(ids) + number)
        ]
        ids.extend(job.id for job in enqueue_many(jobs, attempts=50, backoff="fixed:100ms"))

    enqueue(mails)
    processes = Workers(folder)
    running = [processes.start(*WORKER) for _ in range(workers)]
    try:
        deadline = time.monotonic() + 120 + mails / 5
        killed, next_kill = 0, 0.0
        while killed < kills or not ended(redis, len(ids)):
            assert time.monotonic() < deadline, processes.logs()[-3000:]
            if killed < kills and redis.llen(key("queue", "email")) < 10:
                enqueue(20)  # however fast the workers are, they are not to come to an end before they are killed
            if killed < kills and time.monotonic() > next_kill and handed_over_now(redis) > 2:
                time.sleep(random.random() * 0.4)
                victim = random.randrange(workers)
                running[victim].kill()
                running[victim].wait()
                running[victim] = processes.start(*WORKER)
                killed, next_kill = killed + 1, time.monotonic() + random.uniform(0.1, 0.5)
            # A job that was under three killed workers is taken for the cause. Here we know better.
            dead_letters.requeue(letter.job_id for letter in dead_letters.dead_letters("email", "WorkerDied"))
            time.sleep(0.05)
    finally:
        processes.stop()
    return ids


def handed_over_now(redis: redis_py.Redis) -> int:
    """How many mails are on their way at this moment: killing a worker now makes their outcome unknown."""
    return sum(b'"state":"sending"' in (redis.get(name) or b"") for name in redis.keys(keys.email_send_record("*")))


def ended(redis: redis_py.Redis, mails: int) -> bool:
    poison = any(True for _ in dead_letters.dead_letters("email", "WorkerDied"))
    return not poison and redis.zcard(key("finished", "email")) + redis.zcard(key("failed", "email")) == mails


def unknown(redis: redis_py.Redis, job_id: str) -> int:
    return int(json.loads(redis.get(keys.email_send_record(job_id)) or b"{}").get("unknown", 0))


@pytest.mark.parametrize("form", FORMS)
def test_with_retry_none_is_missing(server: MailServer, redis, tmp_path: Path, form: tuple[int, int, int]) -> None:
    mails, kills, _workers = form
    ids = send_with_killings(redis, form, tmp_path)
    sent = Counter(str(mail.message["Message-ID"]) for mail in server.mails)
    assert set(sent) == {f"<{job_id}@shop.example>" for job_id in ids}
    doubled = {name: count for name, count in sent.items() if count > 1}
    for name, count in doubled.items():
        assert count - 1 <= unknown(redis, name[1:].partition("@")[0]), "doubled, and its outcome was known"
    assert len(dead_letters_of(redis)) == 0
    assert mails < 1000 or doubled, "nothing was in flight when the workers were killed"
    print(f"{len(ids)} mails, {kills} workers killed: {len(doubled)} doubled, each of unknown outcome")


@pytest.mark.parametrize("form", [LONG])
def test_with_hold_none_is_doubled(
    server: MailServer, redis, tmp_path: Path, configure, form: tuple[int, int, int]
) -> None:
    mails, kills, _workers = form
    configure(EMAIL_UNKNOWN_OUTCOME="hold")
    ids = send_with_killings(redis, form, tmp_path)
    sent = Counter(str(mail.message["Message-ID"]) for mail in server.mails)
    held = {letter.job_id for letter in dead_letters.dead_letters("email", "may have been sent")}
    assert set(sent.values()) == {1}
    assert {f"<{job_id}@shop.example>" for job_id in set(ids) - held} <= set(sent), "a mail is missing that is not held"
    assert len(held) == len(dead_letters_of(redis))
    assert mails < 1000 or held, "nothing was in flight when the workers were killed"
    print(f"{len(ids)} mails, {kills} workers killed: {len(held)} held, none doubled")


def test_a_held_mail_is_sent_when_a_user_requeues_it(server: MailServer, redis, configure, workers: Workers) -> None:
    configure(EMAIL_UNKNOWN_OUTCOME="hold")
    server.data.append("drop")
    workers.start(*WORKER)
    mail = enqueue_email({"to": "ada@a.example", "subject": "Mail", "template": "welcome", "data": {"name": "Ada"}})
    eventually(lambda: dead_letters_of(redis) == [mail.id.encode()])
    assert len(server.mails) == 1
    assert dead_letters.requeue([mail.id]) == [mail.id]
    eventually(lambda: fetch_job(mail.id, redis).get_status() == "finished")
    assert len(server.mails) == 2


@pytest.mark.parametrize("form", FORMS)
def test_with_resend_none_is_missing_or_doubled(redis, tmp_path: Path, configure, form: tuple[int, int, int]) -> None:
    mails, kills, _workers = form
    with MailAPI() as api:
        configure(EMAIL_BACKEND="resend", RESEND_API_URL=api.url, RESEND_API_KEY=api.key, RESEND_RATE="500/s")
        api.script.extend(
            Script(accept=True, before=wait_a_bit, hang_up=n % 3 == 0, body={"id": "x"}) for n in range(10 * mails)
        )
        ids = send_with_killings(redis, form, tmp_path)
    assert sorted(sent.headers["idempotency-key"] for sent in api.sent) == sorted(ids)
    assert len(dead_letters_of(redis)) == 0
    print(
        f"{len(ids)} mails, {kills} killings, {api.requests - len(ids)} requests repeated: none doubled, none missing"
    )


def wait_a_bit() -> None:
    time.sleep(random.random() * 0.3)


def dead_letters_of(redis: redis_py.Redis) -> list[bytes]:
    found: list[bytes] = redis.zrange(key("failed", "email"), 0, -1)
    return found
