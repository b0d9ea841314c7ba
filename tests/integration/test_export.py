"""Data export on SQLite and PostgreSQL: whose rows, which rows, resumed, published, recorded."""

from __future__ import annotations

import csv
import json
import re
import time
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from rqjobs.attempt import Attempt
from rqjobs.cli import cli
from rqjobs.config.settings import use_settings
from rqjobs.database import get_engine
from rqjobs.errors import InvalidJob, PermanentFailure, RetryLater
from rqjobs.jobs import DataExportJob
from rqjobs.processors.export import export, find, open_link, partial, processor, purge, purging, reading
from rqjobs.processors.export.links import LinkRefused
from rqjobs.sources import Source, register_source, since_until
from tests.support import apptables
from tests.support.exports import Stopped, stop_after

pytestmark = pytest.mark.usefixtures("nothing_purged_lately")


@pytest.fixture
def engine(database_url):
    from rqjobs.database.schema import init_database

    engine = get_engine()
    init_database(engine)
    apptables.make(engine)
    return engine


def run(job: DataExportJob, **attempt) -> tuple[dict, Path]:
    attempt = {"job_id": "job-1", "queue": "data-export"} | attempt
    result = export(job, Attempt(**attempt))
    record = find(result["export_id"])
    return result, Path(record.location) / record.file_name


def contacts_job(**more) -> DataExportJob:
    return DataExportJob(**{"user_id": "user_1", "export_type": "csv", "data_type": "contacts"} | more)


def bookings_job(**filters) -> DataExportJob:
    return DataExportJob(user_id="7", export_type="json", data_type="bookings", filters=filters)


def ids(job: DataExportJob) -> list[int]:
    return [row["id"] for row in json.loads(run(job)[1].read_text())]


def test_one_users_rows_and_the_allowed_columns_only(engine):
    apptables.add_contacts(engine, 1200)
    apptables.add_contacts(engine, 5, user_id="user_2", first_id=5000)
    result, file = run(contacts_job())
    assert result["rows"] == 1200
    assert result["file_name"].startswith("contacts-20")
    text = file.read_text(encoding="utf-8-sig")
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["id"] for row in rows] == [str(number) for number in range(1, 1201)]
    assert {row["user_id"] for row in rows} == {"user_1"}
    assert "password_hash" not in rows[0]
    assert "updated_at" not in rows[0]  # allowed, but this app's table has none
    assert rows[3]["first_name"] == "Νίκος"
    assert rows[1]["created_at"].removesuffix("Z") == "2026-01-01T00:01:00"
    assert rows[1]["is_subscribed"] == "true"
    assert json.loads(rows[1]["tags"]) == ["vip", "spring"]
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_changed_table_is_reflected_again_by_the_same_process(engine):
    apptables.add_contacts(engine, 2)
    names = lambda: list(json.loads(run(contacts_job(export_type="json"))[1].read_text())[0])  # noqa: E731
    assert "updated_at" not in names()
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE contacts ADD COLUMN updated_at DATE")
        connection.exec_driver_sql("ALTER TABLE contacts RENAME COLUMN phone TO telephone")
        connection.exec_driver_sql("UPDATE contacts SET updated_at = '2026-01-31'")
    changed = names()
    assert "phone" not in changed
    assert changed[-1] == "updated_at"
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA cache_size").scalar_one() < -2000  # an export's is for itself


def test_no_filter_reaches_another_users_rows(engine):
    apptables.add_contacts(engine, 3, user_id="user_2")
    with pytest.raises(PermanentFailure, match="unknown filter 'user_id'"):
        run(contacts_job(filters={"user_id": "user_2"}))
    assert run(contacts_job(filters={"tag": "' OR 1=1 --"}))[0]["rows"] == 0


def test_filters_select_rows(engine):
    apptables.add_bookings(
        engine,
        [
            {"id": 1, "booking_date": date(2026, 1, 30)},
            {"id": 2, "booking_date": date(2026, 1, 31), "status": "cancelled", "tool_id": "5"},
            {"id": 3, "booking_date": date(2026, 2, 1), "service_type": "repair"},
            {"id": 4, "booking_date": date(2026, 2, 1), "user_id": 8},
        ],
    )
    assert ids(bookings_job()) == [1, 2, 3]
    assert ids(bookings_job(since="2026-01-31")) == [2, 3]
    assert ids(bookings_job(until="2026-01-31")) == [1, 2]
    assert ids(bookings_job(startDate="2026-01-31", endDate="2026-01-31")) == [2]
    assert ids(bookings_job(until="2026-01-31T00:00:00Z")) == [1]
    assert ids(bookings_job(status="confirmed")) == [1, 3]
    assert ids(bookings_job(status=["cancelled", "confirmed"])) == [1, 2, 3]
    assert ids(bookings_job(toolId=5)) == [2]
    assert ids(bookings_job(service_type="repair", since="2026-02-01")) == [3]
    assert ids(DataExportJob(user_id="not a number", export_type="json", data_type="bookings")) == []


def test_a_date_is_the_beginning_of_its_day(engine):
    apptables.add_bookings(engine, [{"id": day, "booking_date": date(2026, 1, day)} for day in (30, 31)])
    apptables.add_bookings(engine, [{"id": 99, "booking_date": date(9999, 12, 31)}])
    assert ids(bookings_job(since="2026-01-31T00:00:00Z")) == [31, 99]
    assert ids(bookings_job(since="2026-01-31T09:30:00Z")) == [99]
    assert ids(bookings_job(until="2026-01-31T09:30:00Z")) == [30, 31]
    assert ids(bookings_job(since="2026-01-31T00:00:00+02:00")) == [31, 99]
    assert ids(bookings_job(since="2026-01-31T00:00:00-02:00")) == [99]
    assert ids(bookings_job(until="9999-12-31T10:00:00Z")) == [30, 31, 99]
    assert ids(bookings_job(since="9999-12-31T10:00:00Z")) == []
    assert ids(bookings_job(since="0001-01-01")) == [30, 31, 99]


def test_a_fraction_of_a_second_counts(engine):
    apptables.add_bookings(engine, [{"id": n, "created_at": datetime(2026, 1, 1, 10, 0, 0, n)} for n in (0, 500000)])  # noqa: DTZ001
    made = Source(name="made", table="bookings", columns=("id",), filters=since_until("created_at"))
    register_source(made)

    def found(**filters):
        return ids(DataExportJob(user_id="7", export_type="json", data_type="made", filters=filters))

    assert found(since="2026-01-01T10:00:00.5Z") == [500000]
    assert found(until="2026-01-01T10:00:00.5Z") == [0]
    assert found(since="2026-01-01T10:00:00.500001Z") == []


@pytest.mark.parametrize("user_id", ["-0", "-0.0", "+0", "00", "0.0", " 0", "0 "])
def test_another_text_than_0_is_not_user_0(engine, user_id):
    apptables.add_bookings(engine, [{"id": 1, "user_id": 0}])
    job = DataExportJob(user_id="0", export_type="json", data_type="bookings")
    assert ids(job) == [1]
    assert ids(job.model_copy(update={"user_id": user_id})) == []


def test_contacts_are_filtered_by_tag_and_time(engine):
    apptables.add_contacts(engine, 10)
    job = contacts_job(export_type="json", filters={"tag": "vip"})
    assert ids(job) == [2, 4, 6, 8, 10]
    assert ids(contacts_job(export_type="json", filters={"tag": "vi"})) == []
    assert ids(contacts_job(export_type="json", filters={"is_subscribed": False})) == [1, 4, 7, 10]
    since = {"since": "2026-01-01T00:08:00Z"}
    assert ids(contacts_job(export_type="json", filters=since)) == [9, 10]
    assert ids(contacts_job(export_type="json", filters={"until": "2026-01-01T02:01:00+02:00"})) == [1]


def test_a_missing_table_is_reported_plainly(settings):
    with pytest.raises(PermanentFailure, match="no table 'contacts' at DATABASE_URL"):
        export(contacts_job(), Attempt(job_id="a", queue="data-export"))


def test_enqueue_refuses_exports_that_could_never_run(redis):
    from rqjobs.enqueueing import enqueue_data_export

    with pytest.raises(InvalidJob, match="did you mean 'status'") as caught:
        enqueue_data_export(bookings_job(statsu="x", since="soon"))
    assert len(caught.value.faults) == 2
    with pytest.raises(InvalidJob, match="no source 'orders'; there are contacts"):
        enqueue_data_export({"user_id": "1", "export_type": "csv", "data_type": "orders"})
    assert redis.keys("*") == []


def test_values_are_the_same_in_postgresqls_binary_form(engine):
    if engine.dialect.name != "postgresql":
        pytest.skip("PostgreSQL's")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TYPE mood AS ENUM ('sad', '=ok')")
        connection.exec_driver_sql(
            """CREATE TABLE kinds (id uuid PRIMARY KEY, user_id text, small smallint, big bigint, price numeric,
            ratio double precision, thin real, flag boolean, code char(4), note varchar, day date, clock time,
            local timestamp, moment timestamptz, raw bytea, doc json, docb jsonb, tags text[], span interval, feel mood,
            host inet)"""
        )
        for row in (
            """('00000000-0000-0000-0000-000000000001', 'u', -7, 9007199254740993, 12.3400, 0.1, 0.1, true, 'ab',
            'Zoë', '2026-01-31', '09:30:00.5', '2026-01-31 09:30:00.25', '2026-07-31 09:30:00+02', '\\x00ff',
            '{"a": [1, 2.50]}', '[null, "x"]', '{a,NULL}', '90 seconds', '=ok', '10.0.0.1')""",
            """('00000000-0000-0000-0000-000000000002', 'u', NULL, NULL, 'NaN', 'Infinity', NULL, NULL, NULL, NULL,
            NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)""",
        ):
            connection.exec_driver_sql(f"INSERT INTO kinds VALUES {row}")
    names = ("id", "small", "big", "price", "ratio", "flag", "code", "note", "day", "clock", "local", "moment", "raw",
             "doc", "docb")  # fmt: skip

    def rows(*columns):
        register_source(Source(name="kinds", table="kinds", columns=columns))
        job = DataExportJob(user_id="u", export_type="ndjson", data_type="kinds")
        return [json.loads(line) for line in run(job)[1].read_text().splitlines()]

    binary = rows(*names)
    texts = rows(*names, "feel")  # a type that psycopg does not know: no column comes in binary
    assert [{name: row[name] for name in names} for row in texts] == binary
    assert binary[0] == {
        "id": "00000000-0000-0000-0000-000000000001", "small": -7, "big": 9007199254740993, "price": "12.3400",
        "ratio": 0.1, "flag": True, "code": "ab  ", "note": "Zoë", "day": "2026-01-31", "clock": "09:30:00.500000",
        "local": "2026-01-31T09:30:00.250000", "moment": "2026-07-31T07:30:00Z", "raw": "AP8=",
        "doc": {"a": [1, 2.5]}, "docb": [None, "x"],
    }  # fmt: skip
    assert (binary[1]["price"], binary[1]["ratio"]) == ("NaN", None)
    others = {"thin": 0.1, "tags": ["a", None], "span": "PT90S", "feel": "=ok", "host": "10.0.0.1"}
    for name, value in others.items():  # some of them differ in binary: never asked for in it
        assert rows("id", name)[0][name] == value


@pytest.mark.parametrize("export_type", ["csv", "json", "excel", "pdf"])
def test_moments_that_python_has_not_are_exported_as_postgresql_spells_them(engine, export_type):
    if engine.dialect.name != "postgresql":
        pytest.skip("PostgreSQL's")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE ages (id int PRIMARY KEY, user_id text, day date, clock time, local timestamp,"
            " moment timestamptz, zoned timetz, days date[], clocks time[], fine timestamp[])"
        )
        connection.exec_driver_sql(
            """INSERT INTO ages VALUES
            (1, 'u', 'infinity', '24:00', '-infinity', '12026-01-01 00:00:00+00',
             '24:00+05', '{2026-01-31,infinity}', '{09:30,24:00}', '{2024-10-10 10:24:00}'),
            (2, 'u', '2026-01-31', '09:30', '2026-01-31 09:30:00.25', '2026-07-31 09:30:00+02',
             '09:30+05', '{2026-01-31}', '{09:30}', '{2026-01-31 24:00:00}'),
            (3, 'u', '0044-03-15 BC', NULL, NULL, 'infinity', NULL, '{}', NULL, '{NULL}')"""
        )
    columns = ("id", "day", "clock", "local", "moment", "zoned", "days", "clocks", "fine")
    register_source(Source(name="ages", table="ages", columns=columns))
    result, file = run(DataExportJob(user_id="u", export_type=export_type, data_type="ages"))
    assert result["rows"] == 3
    if export_type == "json":
        first, second, third = json.loads(file.read_text())
        assert first == {
            "id": 1, "day": "infinity", "clock": "24:00:00", "local": "-infinity", "moment": "12026-01-01 00:00:00+00",
            "zoned": "24:00:00+05", "days": "{2026-01-31,infinity}", "clocks": "{09:30:00,24:00:00}",
            "fine": ["2024-10-10T10:24:00"],
        }  # fmt: skip
        assert second == {
            "id": 2, "day": "2026-01-31", "clock": "09:30:00", "local": "2026-01-31T09:30:00.250000",
            "moment": "2026-07-31T07:30:00Z",
            "zoned": "09:30:00+05:00", "days": "{2026-01-31}", "clocks": "{09:30:00}", "fine": ["2026-02-01T00:00:00"],
        }  # fmt: skip
        assert third == {
            "id": 3, "day": "0044-03-15 BC", "clock": None, "local": None, "moment": "infinity",
            "zoned": None, "days": "{}", "clocks": None, "fine": [None],
        }  # fmt: skip


@pytest.mark.parametrize("export_type", ["csv", "ndjson", "json"])
def test_a_retry_resumes_or_starts_over_and_loses_no_row(engine, export_type, monkeypatch):
    monkeypatch.setattr(partial, "_CHECKPOINT_EVERY", 0)
    monkeypatch.setattr(processor, "_REPORT_EVERY", 0)
    apptables.add_contacts(engine, 2600)
    job = contacts_job(export_type=export_type)
    whole = run(job, job_id="whole")[1].read_bytes()
    for stop in (900, 2000):
        with pytest.raises(Stopped):
            run(job, report=stop_after(stop))
        assert not list(Path(".rqjobs/exports").glob("contacts-job-1*"))
    seen = []
    result, file = run(job, number=3, report=lambda progress: seen.append(progress["rows"]))
    assert file.read_bytes() == whole
    assert result["rows"] == 2600
    assert seen[0] == (0 if export_type == "json" else 2000) + reading.BATCH
    assert not list(file.parent.glob(".*"))


def test_another_job_under_the_same_id_starts_over(engine, monkeypatch):
    monkeypatch.setattr(partial, "_CHECKPOINT_EVERY", 0)
    monkeypatch.setattr(processor, "_REPORT_EVERY", 0)
    apptables.add_contacts(engine, 1500)
    with pytest.raises(Stopped):
        run(contacts_job(), report=stop_after(1000))
    result, file = run(contacts_job(filters={"tag": "vip"}))
    assert result["rows"] == 750
    assert len(file.read_text("utf-8-sig").splitlines()) == 751


def test_a_run_that_is_still_writing_is_not_disturbed(engine):
    apptables.add_contacts(engine, 10)

    def second(_progress):
        with pytest.raises(RetryLater, match="still writes"):
            run(contacts_job())

    assert run(contacts_job(), report=second)[0]["rows"] == 10


def test_an_id_is_neither_a_pattern_nor_a_path(engine):
    apptables.add_contacts(engine, 3)
    folder = Path(".rqjobs/exports")
    folder.mkdir(parents=True)
    others = [folder / f".contacts-other.csv.{end}" for end in ("part", "checkpoint", "draft")]
    for other in others:
        other.write_text("half")
    for number, job_id in enumerate(["*", "?ther", "[a-z]*", "../../escaped", "a/b", "..", "\u00e9"], 1):
        result, file = run(contacts_job(), job_id=job_id)
        assert (result["rows"], file.parent) == (3, folder.absolute())
        assert len(list(folder.glob("contacts-id-*.csv"))) == number
    assert all(other.read_text() == "half" for other in others)


@pytest.mark.parametrize("end", ["part", "checkpoint", "draft"])
@pytest.mark.parametrize("link", ["symbolic", "hard"])
def test_a_planted_link_is_not_written_through(engine, end, link, monkeypatch):
    monkeypatch.setattr(partial, "_CHECKPOINT_EVERY", 0)
    apptables.add_contacts(engine, 1000)
    folder = Path(".rqjobs/exports")
    folder.mkdir(parents=True)
    victim = Path("victim").absolute()
    victim.write_text("untouched")
    planted = folder / f".contacts-job-1.csv.{end}"
    planted.symlink_to(victim) if link == "symbolic" else planted.hardlink_to(victim)
    result, file = run(contacts_job())
    assert (result["rows"], victim.read_text()) == (1000, "untouched")
    assert not file.is_symlink()
    assert not list(folder.glob(".*"))


def test_a_file_that_is_exchanged_while_it_is_written_is_not_published(engine, monkeypatch):
    apptables.add_contacts(engine, 10)
    victim = Path("victim").absolute()
    victim.write_text("secret")

    def exchange(_progress):
        planted = Path(".rqjobs/exports/.contacts-job-1.csv.part")
        planted.unlink()
        planted.symlink_to(victim)

    with pytest.raises(OSError, match="replaced"):
        run(contacts_job(), report=exchange)
    assert not list(Path(".rqjobs/exports").iterdir())


def test_24_is_never_read_as_0():
    def of_python_3_14(text):
        return datetime(2026, 2, 1) if re.search("(^|[T ])24:00", text) else datetime.fromisoformat(text)  # noqa: DTZ001

    parse = reading._but_24(of_python_3_14, "2026-01-31T24:00:00")
    for text in ("2026-01-31T24:00:00", "2026-01-31 24:00", "24:00:00", "24:00:00+05", "T24:00"):
        assert reading._each(parse)([text]) == [text]
    kept = ["2024-10-10T10:24:00", "2024-10-10 10:00:24"]
    assert reading._each(parse)(kept) == [datetime.fromisoformat(text) for text in kept]


def test_progress_is_reported(engine, monkeypatch):
    monkeypatch.setattr(processor, "_REPORT_EVERY", 0)
    apptables.add_contacts(engine, 1200)
    seen = []
    run(contacts_job(), report=seen.append)
    assert seen[0] == {"rows": reading.BATCH, "of": 1200, "percent": round(reading.BATCH / 12, 1)}
    assert seen[-1] == {"rows": 1200, "of": 1200, "percent": 100.0}


def test_a_link_is_for_its_owner_and_for_a_while(engine, monkeypatch):
    apptables.add_contacts(engine, 10)
    result, _file = run(contacts_job())
    token = result["url"].removeprefix("/exports/")
    assert open_link(token, "user_1").rows == 10
    for user in ("user_2", None, ""):
        with pytest.raises(LinkRefused, match="not yours") as caught:
            open_link(token, user)
        assert caught.value.status == 404
    with pytest.raises(LinkRefused, match="not yours"):
        open_link(token[:-9] + ("a" if token[-9] != "a" else "b") + token[-8:], "user_1")
    monkeypatch.setenv("EXPORT_LINK_LIFETIME", "0")
    use_settings(None)
    time.sleep(1.1)  # itsdangerous counts whole seconds
    with pytest.raises(LinkRefused, match="no longer valid") as caught:
        open_link(token, "user_1")
    assert caught.value.status == 410


def test_files_are_deleted_when_their_time_is_over(engine, monkeypatch):
    apptables.add_contacts(engine, 10)
    monkeypatch.setenv("EXPORT_KEEP", "0")
    use_settings(None)
    result, file = run(contacts_job())  # purges at its end
    assert not file.exists()
    record = find("job-1")
    assert record.deleted_at is not None
    assert (record.user_id, record.rows, record.data_type, record.filters) == ("user_1", 10, "contacts", {})
    assert purge() == []
    with pytest.raises(LinkRefused, match="deleted"):
        open_link(result["url"].removeprefix("/exports/"), "user_1")


def test_expired_files_are_searched_once_a_minute(engine, monkeypatch):
    apptables.add_contacts(engine, 1)
    monkeypatch.setenv("EXPORT_KEEP", "0")
    use_settings(None)
    files = [run(contacts_job(), job_id=name)[1] for name in ("first", "second")]
    assert [file.exists() for file in files] == [False, True]
    monkeypatch.setattr(purging, "_next_look", time.monotonic() - 0.001)
    files.append(run(contacts_job(), job_id="third")[1])
    assert [file.exists() for file in files] == [False, False, False]


def test_a_purge_that_the_database_refuses_does_not_fail_the_export(engine, caplog):
    def refuse(_connection, _cursor, statement, *_):
        if "expires_at <=" in statement:
            raise OperationalError(statement, (), Exception("disk I/O error"))

    apptables.add_contacts(engine, 10)
    event.listen(engine, "before_cursor_execute", refuse)
    result, file = run(contacts_job())
    event.remove(engine, "before_cursor_execute", refuse)
    assert (result["rows"], file.exists()) == (10, True)
    assert "expired exports not deleted" in caplog.text


def test_an_old_store_that_does_not_answer_does_not_fail_the_next_export(engine, tmp_path, monkeypatch, caplog):
    apptables.add_contacts(engine, 10)
    with monkeypatch.context() as patched:
        patched.setenv("EXPORT_URL", str(tmp_path / "old"))
        patched.setenv("EXPORT_KEEP", "0")
        patched.setattr(processor, "purge_now_and_then", lambda: None)
        use_settings(None)
        run(contacts_job())
    use_settings(None)
    (tmp_path / "old").rename(tmp_path / "unplugged")
    (tmp_path / "old").touch()
    result, file = run(contacts_job(), job_id="job-2")
    assert file.exists()
    assert result["rows"] == 10
    assert "export not deleted" in caplog.text
    assert CliRunner().invoke(cli, ["exports", "purge"]).exit_code == 1
    (tmp_path / "old").unlink()
    (tmp_path / "unplugged").rename(tmp_path / "old")
    assert [export.id for export in purge()] == ["job-1"]
    assert not list((tmp_path / "old").iterdir())


def test_another_store_by_its_url(engine, monkeypatch):
    import fsspec

    monkeypatch.setenv("EXPORT_URL", "memory://bucket/exports")
    use_settings(None)
    apptables.add_contacts(engine, 10)
    result = export(contacts_job(export_type="ndjson"), Attempt(job_id="far", queue="data-export"))
    with fsspec.open("memory://bucket/exports/contacts-far.ndjson") as file:
        assert len(file.read().splitlines()) == 10
    assert find("far").location == "memory://bucket/exports"
    assert result["rows"] == 10


def test_a_function_as_a_source(settings):
    def orders(user_id, filters):
        assert user_id == "user_1"
        yield {"id": 1, "total": "9.90", "secret": "no"}
        yield (2, "1.00")

    register_source(Source(name="orders", columns=("id", "total"), rows=orders))
    job = DataExportJob(user_id="user_1", export_type="ndjson", data_type="orders")
    _result, file = run(job)
    assert [json.loads(line) for line in file.read_text().splitlines()] == [
        {"id": 1, "total": "9.90"},
        {"id": 2, "total": "1.00"},
    ]


def test_a_mail_needs_a_link_that_works_outside(redis):
    from rqjobs.enqueueing import enqueue_data_export

    with pytest.raises(InvalidJob, match="set EXPORT_LINK_URL"):
        enqueue_data_export(contacts_job(notify="ada@example.com"))


def test_the_link_is_mailed_once_if_requested(engine, redis, monkeypatch):
    monkeypatch.setenv("EXPORT_LINK_URL", "https://app.example.com/exports")
    use_settings(None)
    apptables.add_contacts(engine, 10)
    job = contacts_job(notify="ada@example.com")
    attempt = {"enqueued_at": datetime.now().astimezone() - timedelta(seconds=5)}
    result, _file = run(job, **attempt)
    run(job, number=2, **attempt)
    mails = redis.lrange("rq:queue:email", 0, -1)
    assert len(mails) == 1
    payload = redis.hget(b"rq:job:" + mails[0], "data")
    assert b"https://app.example.com/exports/" in payload
    assert result["url_expires_at"].encode() in payload  # the file outlives its link
    assert result["expires_at"].encode() not in payload
    seconds = datetime.fromisoformat(result["url_expires_at"]).timestamp() - time.time()
    assert 86_300 < seconds <= 86_400
