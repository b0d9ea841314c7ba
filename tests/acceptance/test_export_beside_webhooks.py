"""A million rows are exported, and webhook deliveries of the same worker do not notice."""

from __future__ import annotations

import time

import pytest

from rqjobs import DataExportJob, WebhookJob, enqueue_data_export, enqueue_webhook, wait_for_result
from rqjobs.database import get_engine
from rqjobs.layout import fetch_job
from tests.support import apptables
from tests.support.receiver import Receiver

SECONDS = 8
RATE = 40


@pytest.fixture
def receiver():
    server = Receiver().start()
    yield server
    server.stop()


def delays(receiver: Receiver, seconds: float) -> list[float]:
    """From enqueueing to arrival, sorted, at a steady rate."""
    sent = {}
    begin = time.monotonic()
    for number in range(int(seconds * RATE)):
        time.sleep(max(0.0, begin + number / RATE - time.monotonic()))
        now = time.time()
        job = enqueue_webhook(
            WebhookJob(webhook_id="wh", event="qr.scanned", url=receiver.url(), payload={"n": number})
        )
        sent[job.id] = now
    arrived: dict[str, float] = {}
    end = time.monotonic() + 20
    while len(arrived) < len(sent) and time.monotonic() < end:
        arrived = {r.webhook_id: r.at for r in receiver.requests if r.webhook_id in sent}
        time.sleep(0.05)
    assert len(arrived) == len(sent)
    return sorted(arrived[job_id] - at for job_id, at in sent.items())


def p99(values: list[float]) -> float:
    return values[int(len(values) * 0.99) - 1]


@pytest.mark.slow
@pytest.mark.parametrize("export_type", ["csv", "json", "excel", "pdf"])
def test_deliveries_keep_their_pace(workers, redis, receiver, export_type):
    apptables.make(get_engine())
    apptables.add_contacts(get_engine(), 1_000_000)
    workers.start(WEBHOOK_ALLOW="127.0.0.1", RQJOBS_IMPORT="")
    delays(receiver, 2)  # everything is started and connected
    alone = delays(receiver, SECONDS)
    job = enqueue_data_export(DataExportJob(user_id="user_1", export_type=export_type, data_type="contacts"))
    while not fetch_job(job.id, redis).meta.get("progress"):
        time.sleep(0.05)
    beside: list[float] = []
    while fetch_job(job.id, redis).get_status(refresh=True).value == "started":
        beside += delays(receiver, 2)
    result = wait_for_result(job, "300s")
    beside.sort()
    line = (
        f"{export_type} {result['rows']:,} rows: p50 {alone[len(alone) // 2] * 1000:.1f} -> "
        f"{beside[len(beside) // 2] * 1000:.1f} ms, p99 {p99(alone) * 1000:.1f} -> {p99(beside) * 1000:.1f} ms"
    )
    print(line)
    assert p99(beside) < 2 * p99(alone) + 0.02, line
