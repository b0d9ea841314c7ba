"""The largest payloads, many at once: done, without a storm of reconnects, in bounded memory."""

from __future__ import annotations

import base64
import random
import time
from dataclasses import asdict

import pytest

from rqjobs import DataExportJob, EmailJob, ManyChatSyncJob, QRAnalyticsJob, WebhookJob, enqueue_many
from rqjobs.broker.connection import get_connection
from tests.chaos import jobs
from tests.chaos.ledger import append
from tests.chaos.run import Run, Scenario
from tests.chaos.sampling import Sampler

pytestmark = pytest.mark.slow

SIZE = 250_000
"""Bytes of filler in a job: with the rest of the largest job just under RQJOBS_MAX_PAYLOAD, 256 KiB."""
_AT_ONCE = 20  # jobs in a call: 5 MB


_FILLERS = [base64.b64encode(random.randbytes(SIZE * 3 // 4)).decode() for _ in range(4)]


def _model(kind: str, mark: str, receiver: str):
    filler = random.choice(_FILLERS)
    match kind:
        case "hook":
            payload = {"mark": mark, "filler": filler}
            return WebhookJob(webhook_id="wh", event="chaos.ran", url=f"{receiver}/ok", payload=payload)
        case "mail":
            data = {"name": "Ada", "filler": filler}
            return EmailJob(to="ada@x.example", subject=mark, template="welcome", data=data)
        case "chat":
            tool = f"tool_{int(mark.rpartition('.')[2]) % 10}"
            data = {"email": f"{mark}@x.example", "has_opt_in_email": True, "fields": {"note": filler}}
            return ManyChatSyncJob(type="contact", action="create", tool_id=tool, data=data)
        case "scan":
            return QRAnalyticsJob(qr_code_id="qr", event="scan", data={"event_id": mark, "filler": filler})
        case "export":
            return DataExportJob(user_id="u", export_type="csv", data_type="chaos", filters={"note": filler})
        case _:
            return getattr(jobs, kind).job({"mark": mark, "filler": filler})


def _enqueue(run: Run, numbers: dict[str, int]) -> None:
    for kind, number in numbers.items():
        for start in range(0, number, _AT_ONCE):
            marks = [f"{kind}.{n}" for n in range(start, min(start + _AT_ONCE, number))]
            enqueued = enqueue_many([_model(kind, mark, run.outside.url()) for mark in marks])
            for mark, job in zip(marks, enqueued, strict=True):
                append(run.ledger.acknowledged_file, f"{mark} {job.id} {time.time():.3f}")


def backlog(name: str, numbers: dict[str, int], tmp_path, monkeypatch, record_property) -> None:
    """Enqueues all before the first worker starts, and lets two workers do it."""
    run = Run(Scenario(name, lambda run: None, drain=900), tmp_path, long=True, rate=0)
    with run.world(monkeypatch.setenv):
        for account in run.outside.manychat.accounts.values():
            account.call("POST", "page/createCustomField", {"caption": "note", "type": "text"})
        _enqueue(run, numbers)
        megabytes = int(get_connection().info("memory")["used_memory"]) >> 20
        before = run.redis.client.info("stats")["total_connections_received"]
        with run.crew, Sampler(run.crew, 0.3) as sampler:
            run.start_workers()
            began = time.monotonic()
            run.drain()
            took = time.monotonic() - began
            counts = run.count()
            connections = run.redis.client.info("stats")["total_connections_received"] - before
            run.faults += run.crew.stop()
        away = run.crew.logs().count("redis is away")
    counts.seconds = took
    counts.notes = [f"{megabytes} MiB in Redis", f"{away} times away from Redis", f"{connections} connections",
                    f"peak of a worker {sampler.peak:.0f} MiB"]  # fmt: skip
    counts.faults += run.faults
    print(f"\n{counts.line()}")
    record_property("chaos", asdict(counts))
    assert not counts.faults, "\n".join(counts.faults[:40])
    assert counts.done == sum(numbers.values())
    assert run.crew.ended == []
    assert away == 0
    assert connections < 1000
    assert sampler.peak < 1500


def test_a_thousand_of_the_largest_jobs_in_every_queue(tmp_path, monkeypatch, record_property):
    kinds = ("hook", "chat", "mail", "scan", "export", "own", "coroutine", "process")
    backlog("load-every-queue", dict.fromkeys(kinds, 1000), tmp_path, monkeypatch, record_property)


def test_a_backlog_of_200_megabytes(tmp_path, monkeypatch, record_property):
    backlog("load-200-mb", {"hook": 1100, "own": 50}, tmp_path, monkeypatch, record_property)
