"""docs/lifecycle.md lists every key in Redis: compared with the code, and with what a run of all features writes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest
import redis as redis_py
from rq import Queue

from rqjobs import (
    EmailJob,
    ManyChatSyncJob,
    QRAnalyticsJob,
    WebhookJob,
    enqueue,
    enqueue_batch,
    enqueue_chain,
    enqueue_many,
    wait_for_result,
)
from rqjobs.broker import keys
from rqjobs.broker.rq_schema import SERIALIZER
from rqjobs.broker.scripts import source
from rqjobs.database import get_engine
from rqjobs.database.schema import init_database
from rqjobs.dead_letters.letters import requeue
from rqjobs.monitoring.alerts import check
from rqjobs.monitoring.queue_health import pause, resume
from rqjobs.testing.sandbox.receiver import Receiver, signing_secret
from tests.support.key_recorder import SCRIPTS, KeyRecorder, Write
from tests.support.manychat import sandbox
from tests.support.processors import ProbeJob, plain
from tests.support.servers import free_port
from tests.support.workers import ROOT, Workers, eventually


class Row(NamedTuple):
    """One row of the page's tables."""

    pattern: str
    type: str
    writers: list[str]

    @property
    def regex(self) -> str:
        """What the keys of the row look like. Only the last part of a key may have colons of its own."""
        return "".join(".+" if part.startswith("<") else re.escape(part) for part in re.split(r"(<\w+>)", self.pattern))


_TABLES = (ROOT / "docs" / "lifecycle.md").read_text().partition("## Every key in Redis")[2].replace(r"\|", "\0")
ROWS = [
    Row(pattern.replace("\0", "|"), cells[1], re.findall(r"`([^`]+)`", cells[3]) + ["RQ"] * ("RQ" in cells[3]))
    for line in re.findall(r"^\| (`rq.*) \|$", _TABLES, re.MULTILINE)
    for cells in [line.split(" | ")]
    for pattern in re.findall(r"`([^`]+)`", cells[0])
]


def row_of(write: Write) -> Row | None:
    """The most exact row for a key: the one with the longest text outside its variable parts."""
    found = [row for row in ROWS if re.fullmatch(row.regex, write.key)]
    return max(found, key=lambda row: len(re.sub(r"<\w+>", "", row.pattern)), default=None)


@pytest.mark.parametrize("row", ROWS, ids=[row.pattern for row in ROWS])
def test_the_writers_in_a_row_write_its_key(row: Row) -> None:
    assert row.writers
    if set(row.writers) == {"RQ"}:
        return
    words = set(re.findall(r"\w+", re.sub(r"<\w+>", "", row.pattern))) - {"rq", "rqjobs"}
    names = Path(keys.__file__).read_text()
    for writer in set(row.writers) - {"RQ"}:
        if writer in SCRIPTS:
            text = source(writer).decode()
            assert any(word in text for word in words) or "KEYS[1]" in text, f"{writer}.lua does not name {row.pattern}"
        else:
            text = (ROOT / "rqjobs" / writer).read_text()
            assert any(word in text or word in names for word in words), f"{writer} does not name {row.pattern}"


def test_every_key_of_keys_py_is_on_the_page() -> None:
    shown = {row.pattern for row in ROWS}
    text = Path(keys.__file__).read_text()
    named = {re.sub(r"\{\w+\}", "<x>", name) for name in re.findall(r'f"\{PREFIX\}(:[^"]+)"', text)}
    assert len(named) > 20
    listed = {re.sub(r"<\w+>", "<x>", pattern.removeprefix("rqjobs")) for pattern in shown}
    assert named - listed == {":dead:causes:<x>"}  # of earlier versions, deleted where it is found


def run_all_features(receiver: Receiver, workers: Workers, redis: redis_py.Redis, folder: Path) -> None:
    """Jobs of all kinds, done, retried, dead, delayed, held, parked, merged, requeued, and plain RQ jobs."""
    init_database(get_engine())
    worker = workers.start()

    def hook(url: str) -> WebhookJob:
        return WebhookJob(webhook_id="wh_1", event="booking.created", url=url, payload={})

    contact = {"email": "ada@example.com", "first_name": "Ada", "add_tags": ["vip"]}
    booking = {"name": "Ada", "service_type": "Visit", "start_time": "2027-03-01T10:00:00+00:00"}
    tag = ManyChatSyncJob(
        type="tag", action="update", tool_id="s", data={"email": "ada@example.com", "add": ["a"]}, merge=True
    )
    (folder / "log.away").touch()
    jobs = enqueue_many([
        hook(receiver.url + "/ok"),
        ManyChatSyncJob(type="contact", action="create", tool_id="s", data=contact),
        EmailJob(to="ada@example.com", subject="Visit", template="booking-confirmation", data=booking),
        QRAnalyticsJob(qr_code_id="table-1", event="scan", data={}),
    ])  # fmt: skip
    enqueue_many([hook(f"http://127.0.0.1:{free_port()}/") for _ in range(3)])
    with get_engine().begin() as transaction:
        jobs += enqueue_many([ProbeJob(log=str(folder / "log"))], outbox=transaction)
    probe = ProbeJob(log=str(folder / "log"))
    batches = [enqueue_batch([probe] * 3, then=probe), enqueue_chain([probe] * 2)]
    dying = enqueue_batch([ProbeJob(log=str(folder / "log"), do="permanent")], on_dead=probe)
    dead = enqueue(hook(receiver.url + "/gone"))
    enqueue(ProbeJob(log=str(folder / "log")), delay="1h")
    enqueue(ProbeJob(log=str(folder / "log"), do="away", scope="one"))
    queue = Queue("probe", connection=redis, serializer=SERIALIZER)
    second = queue.enqueue(plain, 2, depends_on=queue.enqueue(plain, 1))
    pause("data-export")
    resume("data-export")
    for job in jobs:
        wait_for_result(job, "60s")
    for batch in batches:
        batch.wait("60s")
    eventually(dying.requeue_dead)
    wait_for_result(enqueue(tag), "60s")
    eventually(lambda: redis.hget(f"rq:job:{dead.id}", "status") == b"failed")
    requeue(dead.id)
    check(redis)
    eventually(lambda: second.get_status() == "finished")
    eventually(lambda: redis.exists(keys.METRICS))
    worker.terminate()
    worker.wait(60)


def test_a_run_of_all_features_writes_only_the_keys_that_the_page_lists(
    redis: redis_py.Redis, redis_url: str, workers: Workers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = {
        "WEBHOOK_ALLOW": "127.0.0.1", "WEBHOOK_BREAKER_FAILURES": "1", "WEBHOOK_BREAKER_AFTER": "10ms",
        "MANYCHAT_MERGE_WINDOW": "50ms", "RQJOBS_EMAIL_RATE": "50/s",
    }  # fmt: skip
    with sandbox(monkeypatch), Receiver(signing_secret()) as receiver, KeyRecorder(redis_url) as recorder:
        for name, value in {**settings, "WEBHOOK_SIGNING_SECRET": receiver.secret}.items():
            monkeypatch.setenv(name, value)
        run_all_features(receiver, workers, redis, tmp_path)
    written = {write: row_of(write) for write in recorder.writes}
    assert {write.key for write, row in written.items() if row is None} == set()
    wrong_type = {write for write, row in written.items() if row and write.type != row.type}
    assert wrong_type == set()
    unnamed = {
        (row.pattern, write.script)
        for write, row in written.items()
        if row and write.script not in ("", "RQ") and write.script not in row.writers
    }
    assert unnamed == set(), "scripts that the page does not name as writers"
    assert len({row.pattern for row in written.values() if row}) > 40, "the run does less than it did"
