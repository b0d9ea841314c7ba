"""A sandbox of ManyChat, and jobs run against it in this process."""

from __future__ import annotations

import heapq
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from rqjobs.attempt import Attempt
from rqjobs.broker.connection import get_connection
from rqjobs.broker.rq_schema import job_key
from rqjobs.config.settings import use_settings
from rqjobs.errors import PermanentFailure, RetryLater
from rqjobs.jobs import ManyChatSyncJob
from rqjobs.processors.manychat import admit, sync
from rqjobs.testing.sandbox.manychat import ManyChatSandbox

TOKEN = "4711:hush-0123456789abcdef"


@contextmanager
def sandbox(monkeypatch, **options):
    """The sandbox, and MANYCHAT_API_URL and MANYCHAT_API_TOKEN set to it."""
    with ManyChatSandbox(options.pop("tokens", (TOKEN,)), **options) as played:
        monkeypatch.setenv("MANYCHAT_API_URL", played.url)
        monkeypatch.setenv("MANYCHAT_API_TOKEN", TOKEN)
        use_settings(None)
        yield played


def job(kind, action, data, **more):
    return ManyChatSyncJob(type=kind, action=action, tool_id=more.pop("tool_id", "tool_1"), data=data, **more)


def run(kind, action, data, *, job_id="job-1", number=1, of=3, timeout=60, **more):
    """Runs one job here and now."""
    attempt = Attempt(job_id=job_id, queue="manychat-sync", number=number, of=of, timeout=timedelta(seconds=timeout))
    return sync(job(kind, action, data, **more), attempt)


def known(attempt):
    """Redis knows the job: one that is merged must not have been deleted."""
    words = {"created_at": attempt.enqueued_at.isoformat(), "status": "scheduled"}
    get_connection().hset(job_key(attempt.job_id), mapping=words)
    return attempt


def state(played):
    """Contacts of the first account as people read them: by email, phone or WhatsApp number."""
    account = played.account
    return {
        one.profile.get("email") or one.profile.get("phone") or one.whatsapp_phone: {
            **{name: value for name, value in one.profile.items() if name in ("first_name", "last_name")},
            "fields": {account.fields[key]["name"]: value for key, value in one.fields.items()},
            "tags": {account.tags[tag] for tag in one.tags},
        }
        for one in account.subscribers.values()
    }


def drive(jobs, *, threads=4, of=3, limit=60):
    """A worker in small: admits and runs ``{job_id: job}`` on threads, in order, until each has an outcome."""
    started = datetime.now(UTC)
    due = [(0.0, number, name) for number, name in enumerate(jobs)]
    attempts = {
        name: known(
            Attempt(job_id=name, queue="manychat-sync", of=of, enqueued_at=started + timedelta(microseconds=number))
        )
        for _due, number, name in due
    }
    outcomes, lock, deadline = {}, threading.Lock(), time.monotonic() + limit

    def back(seconds, number, name):
        with lock:
            heapq.heappush(due, (time.monotonic() + seconds, number, name))

    def work():
        while len(outcomes) < len(jobs) and time.monotonic() < deadline:
            with lock:
                batch = [heapq.heappop(due) for _ in range(min(10, len(due))) if due[0][0] <= time.monotonic()]
            asked = [(jobs[name], replace(attempts[name], started=time.monotonic())) for _due, _n, name in batch]
            for (_due, number, name), (one, attempt), hold in zip(batch, asked, admit(asked), strict=True):
                if hold is not None:
                    back((hold.until - datetime.now(UTC)).total_seconds(), number, name)
                    continue
                try:
                    outcomes[name] = sync(one, attempt)
                except RetryLater as later:
                    back(later.after.total_seconds(), number, name)
                except PermanentFailure as failure:
                    outcomes[name] = failure
            time.sleep(0.005)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: work(), range(threads)))
    get_connection().delete(*map(job_key, jobs))
    return outcomes
