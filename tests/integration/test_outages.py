"""Which errors mean that a dependency is away, and which are a job's own; who learns of an outage."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
import redis as redis_py
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from rqjobs import QRAnalyticsJob, WebhookJob, enqueue_many, queue_health
from rqjobs.attempt import Attempt
from rqjobs.broker import holds, keys
from rqjobs.config.settings import use_settings
from rqjobs.database import open_engine
from rqjobs.database.outages import database_outage
from rqjobs.errors import DatabaseUnavailable, DependencyUnavailable, SchemaMismatch
from rqjobs.monitoring import alerts
from rqjobs.monitoring.alerts import Alert, on_alert
from rqjobs.monitoring.prometheus import render
from rqjobs.policies import get_policy
from rqjobs.processors.analytics import record
from rqjobs.processors.export.partial import PartialFile
from rqjobs.processors.export.storage import Folder, StorageUnavailable, storing
from rqjobs.processors.webhook import admit
from rqjobs.worker.failures import outage_of
from tests.support.processors import ProbeJob
from tests.support.workers import Workers, eventually


def postgres_error(state: str | None, kind: type[Exception] = psycopg.OperationalError) -> DBAPIError:
    if state is not None:
        kind = psycopg.errors.lookup(state)
    return DBAPIError.instance("SELECT 1", {}, kind("the server said so"), psycopg.Error)


@pytest.mark.parametrize("state", [None, "08006", "28P01", "28000", "53100", "53200", "53300", "57P01", "57P02",
                                   "57P03", "58030", "3D000", "25006"])  # fmt: skip
def test_an_outage_of_postgresql_is_recognised(state: str | None) -> None:
    outage = database_outage(postgres_error(state))
    assert outage is not None
    assert (outage.dependency, outage.reason) == ("database", "the server said so")


@pytest.mark.parametrize("state", ["57014", "40001", "40P01", "23505", "22001", "42P01", "42501", "55P03", "54000"])
def test_a_statement_of_postgresqls_failed_by_itself(state: str) -> None:
    assert database_outage(postgres_error(state)) is None


def test_postgresql_that_does_not_listen() -> None:
    engine = open_engine("postgresql://nobody:hunter2@127.0.0.1:1/x")
    with pytest.raises(DBAPIError) as caught:
        engine.connect()
    outage = database_outage(caught.value)
    assert outage is not None
    assert "hunter2" not in str(outage)


def test_sqlite(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/a.db")
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE t (x TEXT UNIQUE)"))
        connection.exec_driver_sql("PRAGMA max_page_count=1")
        with pytest.raises(DBAPIError) as full:
            connection.execute(text("INSERT INTO t VALUES (:x)"), {"x": "x" * 100_000})
        for statement in ("SELECT * FROM missing", "INSERT INTO t VALUES ('a'), ('a')", "no statement"):
            with pytest.raises(DBAPIError) as own:
                connection.execute(text(statement))
            assert database_outage(own.value) is None, statement
    assert database_outage(full.value) is not None
    (tmp_path / "b.db").write_bytes(b"no database" * 1000)
    for path in ("b.db", "missing/c.db"):
        with pytest.raises(DBAPIError) as away, create_engine(f"sqlite:///{tmp_path}/{path}").connect() as connection:
            connection.execute(text("SELECT * FROM sqlite_master"))
        assert database_outage(away.value) is not None, path
    with pytest.raises(sqlite3.OperationalError) as raw:
        sqlite3.connect(tmp_path)
    assert database_outage(raw.value) is not None, "the driver's own, past SQLAlchemy"


def test_our_own_errors_are_outages_and_keep_their_words() -> None:
    mismatch = SchemaMismatch("postgresql://h/d", None, "0003")
    assert database_outage(mismatch) is mismatch
    assert "rqjobs db init" in str(mismatch)
    assert str(DatabaseUnavailable("postgresql://h/d", "gone")).startswith("the database at postgresql://h/d")
    assert isinstance(DatabaseUnavailable("u", "r"), ConnectionError)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO, errno.ENOTDIR])
def test_a_missing_export_folder_is_an_outage(number: int) -> None:
    with pytest.raises(StorageUnavailable), storing():
        raise OSError(number, "because")


def test_an_export_folder_that_disappears_during_a_write_is_an_outage(tmp_path: Path) -> None:
    """The half-written file cannot be removed then, and that is no fault of the export either."""
    folder = tmp_path / "exports"
    folder.mkdir()

    def write() -> None:
        with PartialFile(Folder(folder), "x.csv", "c", resumable=False) as partial:
            folder.rename(tmp_path / "aside")
            folder.touch()
            with storing():
                partial.publish()

    with pytest.raises(StorageUnavailable):
        write()


def test_another_error_of_the_system_is_the_exports_own() -> None:
    with pytest.raises(OSError, match="because") as caught, storing():
        raise OSError(errno.EFBIG, "because")
    assert not isinstance(caught.value, DependencyUnavailable)


def test_redis_is_a_dependency_of_our_processors_only() -> None:
    full = redis_py.exceptions.OutOfMemoryError("OOM")
    assert outage_of(full, get_policy("email")) is not None
    assert outage_of(full, get_policy("probe")) is None
    assert outage_of(ValueError("x"), get_policy("email")) is None


def test_events_and_webhooks_wait_for_a_database_that_cannot_be_opened(
    tmp_path: Path, redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/file/rqjobs.db")
    use_settings(None)
    with pytest.raises(DependencyUnavailable, match="database"):
        record(QRAnalyticsJob(qr_code_id="q", event="scan", data={}), Attempt(job_id="j", queue="qr-analytics"))
    webhook = WebhookJob(webhook_id="w", event="e", url="https://a.example/", payload={})
    with pytest.raises(DependencyUnavailable, match="database"):
        admit([(webhook, Attempt(job_id="j", queue="webhooks"))])


def test_the_hold_ends_when_the_dependency_of_admit_answers(
    workers: Workers, tmp_path: Path, redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deliveries fail by themselves, so no trial of theirs is done; the database is found all the same."""
    folder = tmp_path / "folder"
    folder.write_text("")
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{folder}/rqjobs.db")
    monkeypatch.setenv("WEBHOOK_ALLOW", "127.0.0.1")
    use_settings(None)
    webhook = WebhookJob(webhook_id="w", event="e", url="http://127.0.0.1:1/", payload={})
    enqueue_many([webhook] * 5, attempts=2, backoff="fixed:1h")

    def queue() -> SimpleNamespace:
        return SimpleNamespace(**asdict(next(each for each in queue_health() if each.name == "webhooks")))

    workers.start("webhooks")
    eventually(lambda: queue().away)
    assert queue().retried_total == 0
    folder.unlink()
    folder.mkdir()
    eventually(lambda: queue().retried_total == 5)
    assert not queue().away


@pytest.fixture
def told() -> Iterator[list[Alert]]:
    found: list[Alert] = []
    on_alert(found.append)
    yield found
    alerts._hooks.remove(found.append)


def test_one_alert_for_each_dependency_however_many_queues_wait(
    redis: redis_py.Redis, told: list[Alert], monkeypatch: pytest.MonkeyPatch
) -> None:
    def look() -> None:
        redis.delete(keys.ALERT_TURN)
        alerts.check(redis)

    look()
    error = DependencyUnavailable("database", "connection refused")
    jobs = [QRAnalyticsJob(qr_code_id="q", event="scan", data={}), ProbeJob(log="x")]
    for job in jobs:
        (enqueued,) = enqueue_many([job])
        holds.report_away(redis, job.queue, enqueued.id, error)
    for _ in range(3):
        look()
    kinds = [(alert.kind, alert.subject) for alert in told if alert.kind.startswith("dependency")]
    assert kinds == [("dependency-away", "database")]
    (alert,) = (alert for alert in told if alert.kind == "dependency-away")
    assert "connection refused" in alert.text
    assert "2 jobs wait in qr-analytics, probe" in alert.text
    metrics = render(redis).decode()
    assert 'rqjobs_dependency_away_seconds{dependency="database",queue="qr-analytics",scope=""}' in metrics
    assert 'rqjobs_dependency_next_trial_seconds{dependency="database",queue="probe",scope=""}' in metrics
    redis.delete(keys.HOLDS)
    look()
    assert (told[-1].kind, told[-1].subject) == ("dependency-back", "database")
