"""What an app of either version does: this file uses only names that this version and the one before have.

The version is that of the first ``rqjobs`` in PYTHONPATH.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import rqjobs
from rqjobs import (
    DataExportJob,
    EmailJob,
    ManyChatSyncJob,
    QRAnalyticsJob,
    WebhookJob,
    enqueue_data_export,
    enqueue_email,
    enqueue_many,
    enqueue_manychat_sync,
    enqueue_qr_analytics,
    enqueue_webhook,
)
from rqjobs.attempt import Attempt
from rqjobs.database import get_engine
from rqjobs.webhooks import add_endpoint, emit


@rqjobs.job(queue="versions", attempts=3, backoff="fixed:1s")
def note(payload: dict, attempt: Attempt) -> dict:
    """Writes one line for each run, then fails in the first ``fail`` runs, or waits in the first run for a file."""
    line = {"name": payload["name"], "attempt": attempt.number, "of": attempt.of, "by": rqjobs.__file__}
    with Path(os.environ["NOTES"]).open("a") as file:
        file.write(json.dumps(line) + "\n")
    while not Path(payload.get("wait_for", os.environ["NOTES"])).exists():
        time.sleep(0.05)
    if attempt.number <= payload.get("fail", 0):
        raise ConnectionError(f"attempt {attempt.number} was told to fail")
    return line


def webhook(path: str, **more: Any) -> WebhookJob:
    url = os.environ["RECEIVER"] + path
    return WebhookJob(webhook_id="wh_1", event="qr.scanned", url=url, payload={"code": "Ä1"}, **more)


def enqueue() -> dict[str, str]:
    """One job of each kind, with the options that both versions have. Returns the ids by name."""
    contact = {"email": "ada@example.com", "first_name": "Ada", "add_tags": ["vip"]}
    booking = {"name": "Ada", "service_type": "Consultation", "start_time": "2027-03-01T10:00:00+00:00"}
    mail = EmailJob(to="ada@example.com", subject="Yours", template="booking-confirmation", data=booking)
    change = ManyChatSyncJob(type="contact", action="create", tool_id="tool_1", data=contact)
    export = DataExportJob(user_id="user_1", export_type="csv", data_type="contacts")
    scans = [QRAnalyticsJob(qr_code_id="table-7", event="scan", data={"event_id": f"scan-{n % 3}"}) for n in range(4)]
    jobs = {
        "webhook": enqueue_webhook(webhook("/ok")),
        "high": enqueue_webhook(webhook("/ok?high"), priority="high", job_id="my-own-id"),
        "low": enqueue_webhook(webhook("/ok?low"), priority="low", unique=True, timeout="20s"),
        "flaky": enqueue_webhook(webhook("/flaky/1"), attempts=2, backoff="fixed:1s"),
        "gone": enqueue_webhook(webhook("/gone")),
        "delayed": enqueue_webhook(webhook("/ok?delayed"), delay="1s"),
        "contact": enqueue_manychat_sync(change),
        "mail": enqueue_email(mail),
        "export": enqueue_data_export(export),
        "scan": enqueue_qr_analytics(scans[0], delay="500ms"),
        "note": note.enqueue({"name": "note", "fail": 1}),
        "dead": note.enqueue({"name": "dead", "fail": 9}, attempts=1, priority="high"),
    }
    for number, job in enumerate(enqueue_many(scans[1:])):
        jobs[f"scan-{number}"] = job
    return {name: job.id for name, job in jobs.items()}


def enqueue_with_secrets() -> dict[str, str]:
    """The same; besides, what this version encrypts or keeps in the database."""
    ids = enqueue()
    add_endpoint("shop", os.environ["RECEIVER"] + "/ok?endpoint", secret=os.environ["ENDPOINT_SECRET"])
    ids["endpoint"] = emit("booking.created", {"id": 1})[0].id
    ids["headers"] = enqueue_webhook(webhook("/ok?headers", headers={"X-API-Key": "key"})).id
    with get_engine().begin() as connection:
        ids["outbox"] = enqueue_webhook(webhook("/ok?outbox"), outbox=connection).id
    return ids


def enqueue_notes(count: int) -> dict[str, str]:
    """Notes; every third fails in its first run, and every fifth waits a second before it."""
    jobs = [
        (note.job({"name": f"note-{n}", "fail": int(n % 3 == 0)}), {"delay": "1s"} if n % 5 == 0 else {})
        for n in range(count)
    ]
    return {f"note-{n}": job.id for n, job in enumerate(enqueue_many(jobs))}  # type: ignore[arg-type]


def enqueue_note(payload: dict[str, Any], attempts: int) -> dict[str, str]:
    return {payload["name"]: note.enqueue(payload, attempts=attempts).id}


def enqueue_webhooks(path: str, count: int) -> dict[str, str]:
    jobs = enqueue_many([webhook(f"{path}?{n}") for n in range(count)], attempts=20, backoff="fixed:1s")
    return {f"webhook-{n}": job.id for n, job in enumerate(jobs)}


def main(action: str, *arguments: str) -> None:
    """Runs one of the functions above, and prints as JSON what it returns, and which rqjobs it used."""
    answer = globals()[action](*map(json.loads, arguments))
    print(json.dumps({"rqjobs": rqjobs.__file__, "answer": answer}))
