"""A million rows are exported, and webhook deliveries of the same worker do not notice."""

from __future__ import annotations

import time

import pytest

from rqjobs import DataExportJob, WebhookJob, enqueue_data_export, enqueue_webhook, wait_for_result
from rqjobs.broker.rq_schema import fetch_job
from rqjobs.database import get_engine
from tests.support import apptables
from tests.support.receiver import Receiver

RATE = 40
ENOUGH = 1000
"""Deliveries of each kind: a p99 of a few hundred is the accident of the worst three."""


@pytest.fixture
def receiver():
    server = Receiver().start()
    yield server
    server.stop()


def delays(receiver: Receiver, seconds: float) -> list[tuple[float, float]]:
    """When each delivery was enqueued, at a steady rate, and how long after it arrived."""
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
    return [(at, arrived[job_id] - at) for job_id, at in sent.items()]


def percentile(values: list[float], share: float) -> float:
    """In milliseconds."""
    return sorted(values)[int(len(values) * share) - 1] * 1000


@pytest.mark.slow
@pytest.mark.parametrize("export_type", ["csv", "json", "excel", "pdf"])
def test_deliveries_keep_their_pace(workers, redis, receiver, export_type):
    apptables.make(get_engine())
    apptables.add_contacts(get_engine(), 1_000_000)
    workers.start(WEBHOOK_ALLOW="127.0.0.1", RQJOBS_IMPORT="")
    delays(receiver, 2)  # everything is started and connected
    alone: list[float] = []
    beside: list[float] = []
    while len(beside) < ENOUGH:  # in turns, as the machine is not equally fast all the time
        while len(alone) <= len(beside):
            alone += [took for _at, took in delays(receiver, 4)]
        job = enqueue_data_export(DataExportJob(user_id="user_1", export_type=export_type, data_type="contacts"))
        while not fetch_job(job.id, redis).meta.get("progress"):
            time.sleep(0.05)
        found = []
        while fetch_job(job.id, redis).get_status().value == "started":
            found += delays(receiver, 2)
        assert wait_for_result(job, "300s")["rows"] == 1_000_000
        end = fetch_job(job.id, redis).ended_at.timestamp()
        beside += [took for at, took in found if at < end]
    before, after = ([percentile(values, share) for share in (0.5, 0.99)] for values in (alone, beside))
    line = f"{export_type}: p50 {before[0]:.1f} -> {after[0]:.1f} ms, p99 {before[1]:.1f} -> {after[1]:.1f} ms"
    print(line)
    assert after[1] < 2 * before[1], line
