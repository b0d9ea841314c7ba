"""Jobs whose every text tries to run in the browser of whoever looks at them."""

from __future__ import annotations

import base64
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import redis
from sqlalchemy import insert

from rqjobs import QRAnalyticsJob, WebhookJob, enqueue, enqueue_batch
from rqjobs.attempt import Attempt
from rqjobs.broker import keys
from rqjobs.broker.attempts import retried_fields
from rqjobs.broker.rq_schema import ENTRY, job_key, key, results_key
from rqjobs.database import get_engine
from rqjobs.database.webhook_deliveries import Delivery, write
from rqjobs.database.webhook_tables import endpoints
from rqjobs.dead_letters.bulk_requeue import start
from rqjobs.processors.analytics import record
from rqjobs.processors.export.records import Export, save

MARK = "__executed__"

CORPUS = (
    f"<script>window.{MARK}=1</script>",
    f"<img src=x onerror='window.{MARK}=2'>",
    f'"><svg onload=window.{MARK}=3>',
    f"'-(window.{MARK}=4)-'",
    f"</script><script>window.{MARK}=5</script>",
    f"</textarea><img src=x onerror=window.{MARK}=6>",
    f"<%= (window.{MARK}=7) %>",
    f"{{{{constructor.constructor('window.{MARK}=8')()}}}}",
    f"javascript:window.{MARK}=9",
    f"<details open ontoggle=window.{MARK}=10>",
    f"]]><iframe srcdoc='<script>parent.{MARK}=11</script>'></iframe>",
    f"\u2028</title><script>window.{MARK}=12</script>",
)
WHOLE = " ".join(CORPUS)
CODE = CORPUS[0] + CORPUS[2]
"""The id of a QR code, which has to be printable."""


def kill(job_id: str, lane: str, error: str, connection: redis.Redis, *, attempts: int = 3, ago: float = 5.0) -> None:
    """Makes a waiting job dead, as a worker does, with a history of ``attempts`` runs that failed with ``error``."""
    moment = time.time() - ago
    stamp = datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    connection.lrem(key("queue", lane), 1, job_id)
    connection.hset(
        job_key(job_id),
        mapping={"status": "failed", "started_at": stamp, "ended_at": stamp, "retries_left": 0, "worker_name": "w"},
    )
    for number in range(1, attempts + 1):
        start = moment - (attempts - number) * 2
        fields = retried_fields(
            f'Traceback (most recent call last):\n  File "x.py", line 1, in f\n{error}\n',
            attempt=number, worker="w", execution_id=None, started=start, ended=start + 0.25,
        )  # fmt: skip
        if number == attempts:
            fields["type"] = 2
        connection.xadd(results_key(job_id), fields)
    connection.zadd(key("failed", lane), {job_id: moment + 31536000})


def plant(connection: redis.Redis) -> dict[str, str]:
    """Hostile jobs in every state; answers ids by what they are."""
    url = "https://evil.example/?q=%3Cscript%3E"
    ours = enqueue(
        WebhookJob(webhook_id=WHOLE[:255], event="a.b", url=url, payload={WHOLE: WHOLE}, headers={"X-Note": CORPUS[0]})
    )
    kill(ours.id, ours.origin, f"ValueError: {WHOLE}", connection)
    connection.hset(job_key(ours.id), mapping={"description": WHOLE, "meta": json.dumps({WHOLE: WHOLE})})
    waiting = enqueue(WebhookJob(webhook_id="w", event="a.b", url=url, payload={}))
    connection.hset(job_key(waiting.id), "description", WHOLE)
    connection.hset(
        job_key(waiting.id),
        mapping={"meta": json.dumps({"progress": {"percent": 5, WHOLE: WHOLE}}), "group": CORPUS[1]},
    )
    # As others write them straight into Redis: whatever RQ does not check.
    plain: dict[str, Any] = {
        "created_at": "2026-01-01T00:00:00.000000Z",
        "data": json.dumps([f"os.{WHOLE}", None, [WHOLE], {WHOLE: WHOLE}]),
        "description": WHOLE,
        "origin": "webhooks",
        "status": "failed",
        "meta": json.dumps({"x": WHOLE}),
        "worker_name": WHOLE,
    }
    connection.hset(job_key("plain-hostile"), mapping=plain)
    connection.zadd(key("failed", "webhooks"), {"plain-hostile": time.time()})
    done = {**plain, "status": "finished", "data": json.dumps([ENTRY, None, ["webhooks", {}], {}])}
    connection.hset(job_key("done-hostile"), mapping=done)
    connection.zadd(key("finished", "webhooks"), {"done-hostile": time.time()})
    result = base64.b64encode(json.dumps({WHOLE: WHOLE}).encode())
    connection.xadd(results_key("done-hostile"), {"type": 1, "return_value": result})
    queue = CORPUS[0] + CORPUS[2]
    connection.sadd(key("queues"), key("queue", queue))
    connection.rpush(key("queue", queue), waiting.id)
    worker = key("worker", CORPUS[1])
    connection.hset(
        worker,
        mapping={
            "birth": "2026-01-01T00:00:00.000000Z", "last_heartbeat": "2026-01-01T00:00:00.000000Z", "state": WHOLE,
            "queues": f"{queue},webhooks", "hostname": WHOLE, "pid": WHOLE, "version": WHOLE,
            "current_job": waiting.id, "python_version": WHOLE,
        },
    )  # fmt: skip
    connection.sadd(key("workers"), worker)
    unreadable = key("worker", CORPUS[2])
    connection.set(unreadable, "no hash")
    connection.sadd(key("workers"), unreadable)
    hold = dict.fromkeys(("queue", "scope", "dependency", "reason"), WHOLE)
    hold |= {"queue": "webhooks", "since": time.time(), "next": time.time(), "trials": 1, "out": {}}
    connection.hset(keys.HOLDS, "webhooks", json.dumps(hold))
    plant_rows()
    bulk_requeue = start("abc", WHOLE, "dry-run", connection=connection)
    connection.hset(keys.bulk_requeue(bulk_requeue.id), mapping={"message": WHOLE, "canary_id": WHOLE})
    connection.zadd(keys.PARKED, {f"https://{WHOLE}": time.time() + 3600})
    batch = enqueue_batch([WebhookJob(webhook_id="w", event="a.b", url=url, payload={})], name="n", tags={"a": "b"})
    followers = json.dumps([[WHOLE]])
    fields = {"name": WHOLE, "tags": json.dumps({WHOLE: WHOLE}), "then": followers, "on_dead": followers}
    connection.hset(keys.batch(batch.id), mapping=fields)
    connection.sadd(f"{keys.batch(batch.id)}:dead", WHOLE)
    return {
        "batch": batch.id,
        "code": CODE,
        "repair": bulk_requeue.id,
        "dead": ours.id,
        "waiting": waiting.id,
        "plain": "plain-hostile",
        "done": "done-hostile",
        "queue": queue,
    }


def plant_rows() -> None:
    """Hostile rows in the database: a delivery, its endpoint, an export, scans."""
    engine = get_engine()
    job = json.dumps({WHOLE: WHOLE, "headers": {"X-Note": CORPUS[0]}})
    row = Delivery("j1", WHOLE[:255], WHOLE[:128], 1, int(time.time() * 1000), 5.0, 500, "dead", WHOLE, WHOLE, job)
    write(engine, [row], [], timedelta(days=5))
    with engine.begin() as connection:
        connection.execute(
            insert(endpoints).values(
                name=WHOLE[:255], url="https://evil.example/" + CORPUS[2], url_key="x", events=[WHOLE], enabled=False,
                reason=WHOLE, created_ms=0,
            )
        )  # fmt: skip
    now = datetime.now(UTC)
    save(
        Export(
            id="e1", user_id=WHOLE[:255], data_type=CORPUS[0], export_type="csv", filters={}, rows=1, bytes=1,
            location="x", file_name=CORPUS[1], created_at=now, expires_at=now,
        )
    )  # fmt: skip
    data = {"user_id": CODE, "user_agent": WHOLE, "location": {"country": CORPUS[0], "city": CORPUS[1]}}
    for number, event in enumerate(("qr.scanned", "qr.validated")):
        scan = QRAnalyticsJob(qr_code_id=CODE, event=event, data={**data, "result": CORPUS[0]})
        record(scan, Attempt(job_id=f"s{number}", queue=scan.queue))
