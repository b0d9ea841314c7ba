"""Data export: what databases hold, and filters ask for, besides the usual."""

from __future__ import annotations

import csv
import enum
import json
import uuid

import pytest

from rqjobs.attempt import Attempt
from rqjobs.cli import main
from rqjobs.config.settings import use_settings
from rqjobs.database import get_engine
from rqjobs.errors import InvalidJob
from rqjobs.jobs import DataExportJob
from rqjobs.processors.export import export, find, partial, processor, purging
from rqjobs.processors.export.storage import get_storage
from rqjobs.sources import Filter, Source, register_source
from tests.support.exports import Stopped, stop_after

pytestmark = pytest.mark.usefixtures("nothing_purged_lately")


@pytest.fixture
def engine(database_url):
    from rqjobs.database.schema import init_database

    init_database(get_engine())
    return get_engine()


def make(engine, *statements):
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def file_of(user_id="u", export_type="json", job_id="job", report=None, **filters):
    job = DataExportJob(user_id=user_id, export_type=export_type, data_type="odd", filters=filters)
    more = {} if report is None else {"report": report}
    result = export(job, Attempt(job_id=job_id, queue="data-export", **more))
    return get_storage().local_path(find(result["export_id"]).file_name)


def rows(user_id="u", **more):
    return json.loads(file_of(user_id, **more).read_text())


def column(*values, **more):
    return [row["v"] for row in rows(**more)]


def register(*columns, **more):
    register_source(Source(name="odd", table="odd", columns=columns, **more))


def only(engine, dialect):
    if engine.dialect.name != dialect:
        pytest.skip(f"{dialect}'s")


def test_an_enum_that_has_grown_since_the_table_was_read(engine):
    only(engine, "postgresql")
    make(
        engine,
        "CREATE TYPE mood AS ENUM ('sad', 'ok')",
        "CREATE TABLE odd (id int PRIMARY KEY, user_id text, v mood, many mood[])",
        "INSERT INTO odd VALUES (1, 'u', 'ok', '{sad}')",
    )
    register("id", "v", "many", filters={"v": Filter(column="v")})
    assert column() == ["ok"]
    make(engine, "ALTER TYPE mood ADD VALUE 'great'", "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'")
    make(engine, "INSERT INTO odd VALUES (2, 'u', 'great', '{great,blue}')")
    assert [(row["v"], row["many"]) for row in rows()] == [("ok", ["blue"]), ("great", ["great", "blue"])]
    assert column(v="great") == ["great"]
    assert column(v="no mood") == []


def test_sqlite_booleans_and_numbers_keep_their_values(engine):
    only(engine, "sqlite")
    make(
        engine,
        "CREATE TABLE odd (id integer PRIMARY KEY, user_id text, v boolean, price decimal(10,2), exact numeric,"
        " fine decimal(20,4))",
        "INSERT INTO odd VALUES (1, 'u', 1, 12.5, 9007199254740993, 1.23456789), (2, 'u', 'false', 3, 1.234e-11, NULL),"
        " (3, 'u', 2, NULL, 'about 3', 0.00001), (4, 'u', NULL, 0.1, 1, 1), (5, 'u', 0, 1e3, 0.5, 2)",
    )
    register("id", "v", "price", "exact", "fine")
    assert column() == [True, "false", 2, None, False]
    assert [row["price"] for row in rows()] == ["12.50", "3.00", None, "0.10", "1000.00"]
    assert [row["exact"] for row in rows()] == ["9007199254740993", "1.234E-11", "about 3", "1", "0.5"]
    assert [row["fine"] for row in rows()] == ["1.23456789", None, "0.00001", "1.0000", "2.0000"]


def test_postgresql_types_that_python_or_its_driver_has_not(engine):
    only(engine, "postgresql")
    make(
        engine,
        "CREATE DOMAIN label AS text",
        "CREATE DOMAIN always AS timestamptz",
        "CREATE TABLE odd (id int PRIMARY KEY, user_id label, v label[], span interval, term interval, days daterange,"
        " at always)",
        "INSERT INTO odd VALUES (1, 'u', '{ab,cd}', '90 s', 'infinity', '[2026-01-01,infinity)', 'infinity'),"
        " (2, 'u', NULL, '-1 day', '1 month', '[2026-01-01,2026-02-01)', NULL)",
    )
    register("id", "v", "span", "term", "days", "at")
    make(engine, "ALTER ROLE CURRENT_USER SET IntervalStyle = 'iso_8601'")
    engine.dispose()
    try:
        first, second = rows()
    finally:
        make(engine, "ALTER ROLE CURRENT_USER RESET IntervalStyle")
        engine.dispose()
    assert first == {
        "id": 1, "v": "{ab,cd}", "span": "PT90S", "term": "infinity", "days": "[2026-01-01,infinity)", "at": "infinity",
    }  # fmt: skip
    assert (second["span"], second["term"], second["v"], second["at"]) == ("PT-86400S", "1 mon", None, None)


TENANTS = {
    "integer": (10, ["10", "1_0", " 10", "\u0661\u0660", "010", "10.0", "+10", str(2**31), str(2**70), "u"]),
    "numeric": (10, ["10", "1_0", " 10", "010", "user_1", "nan", "inf"]),
    "text": ("'10'", ["10", " 10", "1_0", "010"]),
    "varchar(9)": ("'10'", ["10", " 10"]),
}


@pytest.mark.parametrize("kind", TENANTS)
def test_a_users_id_is_compared_strictly(engine, kind):
    held, asked = TENANTS[kind]
    make(engine, f"CREATE TABLE odd (v int PRIMARY KEY, user_id {kind})", f"INSERT INTO odd VALUES (1, {held})")
    register("v")
    assert [user for user in asked if column(user_id=user)] == ["10"]


def test_filters_match_the_values_of_the_column_and_never_fail_the_export(engine):
    sqlite = engine.dialect.name == "sqlite"
    one = uuid.uuid4()
    make(
        engine,
        "CREATE TABLE odd (v int PRIMARY KEY, user_id text, flag boolean, amount numeric, day date, at timestamp,"
        f" code {'text' if sqlite else 'uuid'}, doc json, number int)",
        f"INSERT INTO odd VALUES (1, 'u', {'1' if sqlite else 'true'}, 1.5, '2026-01-01', '2026-01-01 10:00:00',"
        f" '{one}', '[5, 15]', 1),"
        f" (2, 'u', {'0' if sqlite else 'false'}, 2, '2026-01-02', '2026-01-01 10:00:00.5', NULL, '[15]', 0)",
    )
    names = ("flag", "amount", "day", "code", "doc", "number")
    kinds = {
        **{name: Filter(column=name) for name in names},
        **{f"{name}_id": Filter(column=name, kind="id") for name in names},
        "on": Filter(column="flag", kind="boolean"),
        "many": Filter(column="number", kind="boolean"),
        "size": Filter(column="amount", kind="number"),
        "when": Filter(column="at", kind="moment"),
        "date": Filter(column="day", kind="moment"),
        "has": Filter(column="doc", kind="integer", match="contains"),
    }
    register("v", filters=kinds)
    expected = [
        ({"flag": "false"}, [2]), ({"flag": "true"}, [1]), ({"flag": "perhaps"}, []), ({"on": True}, [1]),
        ({"many": True}, [1]), ({"amount": "1.5"}, [1]), ({"amount": "abc"}, []), ({"size": 2}, [2]),
        ({"size": 1.5}, [1]),
        ({"day": "2026-01-02"}, [2]), ({"day": "never"}, []), ({"code": str(one)}, [1]), ({"code_id": 5}, []),
        ({"number": "1"}, [1]), ({"number_id": 2**40}, []), ({"number_id": 2**80}, []), ({"number": "1\x00"}, []),
        ({"when": "2026-01-01T10:00:00Z"}, [1, 2]), ({"when": "2026-01-01T10:00:01Z"}, []),
        ({"date": "2026-01-02"}, [2]),
        ({"has": 5}, [1]), ({"has": [5, 15]}, [1, 2]), ({"has": 1}, []), ({"doc": "nothing"}, []), ({"day_id": 7}, []),
    ]  # fmt: skip
    assert [(asked, column(**asked)) for asked, _found in expected] == expected


@pytest.mark.parametrize("kind", ["integer", "text", "int"])
def test_going_on_after_a_key_of_any_kind(engine, kind, monkeypatch):
    only(engine, "sqlite")
    monkeypatch.setattr(partial, "_CHECKPOINT_EVERY", 0)
    monkeypatch.setattr(processor, "_REPORT_EVERY", 0)
    monkeypatch.setattr("rqjobs.processors.export.reading.BATCH", 2)
    values = [-5, 1, 2, 30] if kind == "integer" else [-5, 1, 2, 2.5, "a", "c", b"\x01", b"\x02"]
    make(engine, f"CREATE TABLE odd (id {kind} PRIMARY KEY, user_id text) WITHOUT ROWID")
    with engine.begin() as connection:
        for value in values:
            connection.exec_driver_sql("INSERT INTO odd VALUES (?, 'u')", (value,))
    register("id")
    whole = file_of(export_type="csv", job_id="whole").read_bytes()

    for count in range(2, len(values), 2):
        with pytest.raises(Stopped):
            file_of(export_type="csv", report=stop_after(count))
    assert file_of(export_type="csv").read_bytes() == whole


def test_a_checkpoint_of_another_content_is_never_resumed(engine, monkeypatch):
    monkeypatch.setattr(partial, "_CHECKPOINT_EVERY", 0)
    monkeypatch.setattr("rqjobs.processors.export.reading.BATCH", 1)
    make(
        engine,
        "CREATE TABLE odd (id int PRIMARY KEY, user_id text)",
        *(f"INSERT INTO odd VALUES ({n}, '{'uw'[n % 2]}')" for n in range(10)),
    )
    register("id")

    def die(_progress):
        raise Died

    monkeypatch.setattr(processor, "_REPORT_EVERY", 0)
    with pytest.raises(Stopped):
        file_of("u", export_type="csv", report=stop_after(1))
    monkeypatch.setattr(partial, "_CHECKPOINT_EVERY", 99)
    monkeypatch.setattr(partial.PartialFile, "__exit__", lambda self, *_: self.file.close())  # killed: no tidying up
    with pytest.raises(Died):
        file_of("w", export_type="csv", report=die)
    monkeypatch.undo()
    assert file_of("u", export_type="csv").read_text(encoding="utf-8-sig").split() == ["id", "0", "2", "4", "6", "8"]


class Died(BaseException):
    """As by SIGKILL."""


class Yes(enum.Enum):
    """An app's own."""

    YES = True
    NUMBER = 7
    NOTHING = None
    TABLE = {"a": [1]}  # noqa: RUF012  # an Enum's member


def test_a_csv_of_enums(engine):
    register_source(Source(name="odd", columns=("v",), rows=lambda _user, _filters: [(each,) for each in Yes]))
    found = list(csv.reader(file_of(export_type="csv").read_text(encoding="utf-8-sig").splitlines()))
    assert found == [["v"], ["true"], ["7"], [""], ['{"a":[1]}']]


def test_an_excel_file_that_failed_leaves_no_noise(engine, capfd):
    import gc

    def failing(_user, _filters):
        yield from ((n,) for n in range(600))
        raise ZeroDivisionError

    register_source(Source(name="odd", columns=("v",), rows=failing))
    with pytest.raises(ZeroDivisionError):
        file_of(export_type="excel")
    gc.collect()
    assert "Exception ignored" not in capfd.readouterr().err
    assert not list(get_storage().workspace.glob(".*"))


def test_a_tidying_up_that_fails_does_not_fail_the_export(engine, monkeypatch, caplog):
    make(engine, "CREATE TABLE odd (v int PRIMARY KEY, user_id text)", "INSERT INTO odd VALUES (1, 'u')")
    register("v")

    def refuse(**_options):
        raise PermissionError("not yours")

    monkeypatch.setattr(purging, "purge", refuse)
    assert column() == [1]
    assert "expired exports not deleted" in caplog.text


@pytest.mark.parametrize("moment", ["until", "since"])
def test_a_date_beyond_the_calendar_is_refused_at_once(engine, moment):
    value = {"until": "9999-12-31", "since": "0001-01-01T00:00:00+02:00"}[moment]
    from rqjobs import enqueue_data_export

    job = DataExportJob(user_id="u", export_type="csv", data_type="bookings", filters={moment: value})
    with pytest.raises(InvalidJob, match="beyond the calendar"):
        enqueue_data_export(job)


@pytest.mark.parametrize("url", ["memory://x", "file:///tmp/x", "folder"])
def test_a_mail_needs_a_store_that_makes_links(engine, url, monkeypatch):
    from rqjobs import enqueue_data_export

    monkeypatch.setenv("EXPORT_URL", url)
    use_settings(None)
    job = DataExportJob(user_id="u", export_type="csv", data_type="contacts", notify="ada@example.com")
    with pytest.raises(InvalidJob, match="EXPORT_LINK_URL"):
        enqueue_data_export(job)


@pytest.mark.parametrize("columns", ["id", (), ("id", "id")])
def test_a_source_with_such_columns_is_refused(columns):
    with pytest.raises(ValueError, match="source 'odd'"):
        Source(name="odd", table="odd", columns=columns)


def test_a_file_that_is_not_a_database_is_reported(tmp_path, monkeypatch, capsys):
    (tmp_path / "junk.db").write_bytes(b"no database" * 1000)
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/junk.db")
    use_settings(None)
    with pytest.raises(SystemExit, match="2"):
        main(["exports", "list"])
    assert "file is not a database" in capsys.readouterr().err
