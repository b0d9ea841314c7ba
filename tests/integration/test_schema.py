"""The tables: made once by whoever comes first, checked cheaply, a plain message where somebody must act."""

import subprocess
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event, inspect, text

from rqjobs import cli
from rqjobs.config.settings import use_settings
from rqjobs.database import get_engine, metadata, open_engine
from rqjobs.database.schema import HEAD, VERSION_TABLE, ensure_schema, init_database, load_tables, schema_version
from rqjobs.errors import DatabaseUnavailable, InvalidSettings, SchemaMismatch


def test_head_is_the_newest_script():
    config = Config()
    config.set_main_option("script_location", "rqjobs.database:migrations")
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_the_migrations_make_exactly_the_tables_of_the_metadata(database_url):
    engine = get_engine()
    init_database(engine)
    load_tables()
    with engine.connect() as connection:
        options = {
            "version_table": VERSION_TABLE,
            "compare_type": True,
            "compare_server_default": True,
            "include_name": lambda name, kind, _: kind != "table" or name.startswith("rqjobs_"),
        }
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
    init_database(engine)
    assert schema_version(engine) == HEAD


def test_sqlite_makes_its_tables_at_first_use_and_then_sends_no_query():
    engine = get_engine()
    ensure_schema(engine)
    assert VERSION_TABLE in inspect(engine).get_table_names()
    statements = []
    event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    ensure_schema(engine)
    assert statements == []


def test_another_process_finds_the_tables_with_one_question():
    ensure_schema(get_engine())
    engine = open_engine(str(get_engine().url))
    statements = []
    event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    ensure_schema(engine)
    engine.dispose()
    assert [statement.split()[0] for statement in statements] == ["BEGIN", "SELECT"]


def test_postgres_without_tables_names_the_fix(postgres_url):
    engine = get_engine()
    with pytest.raises(SchemaMismatch, match=r"no tables of rqjobs yet. Make them with: rqjobs db init"):
        ensure_schema(engine)
    init_database(engine)
    ensure_schema(engine)


def test_tables_of_a_newer_version_are_left_alone(database_url):
    engine = get_engine()
    init_database(engine)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    for function in (ensure_schema, init_database):
        with pytest.raises(SchemaMismatch, match=r"newer version 9999. Upgrade rqjobs"):
            function(engine)


def test_a_database_that_does_not_answer_is_one_plain_line():
    engine = open_engine("postgresql://user:hunter2@127.0.0.1:1/db")
    with pytest.raises(DatabaseUnavailable, match="Start it, or fix DATABASE_URL") as caught:
        ensure_schema(engine)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_apps_own_tables_and_alembic_are_never_touched(database_url):
    engine = get_engine()
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('theirs')"))
        connection.execute(text("CREATE TABLE bookings (id INTEGER)"))
    init_database(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "theirs"
    assert "bookings" in inspect(engine).get_table_names()


def test_processes_that_start_together_make_the_tables_once(database_url):
    function = "ensure_schema" if database_url.startswith("sqlite") else "init_database"
    code = f"from rqjobs.database import get_engine, schema; schema.{function}(get_engine())"
    processes = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(3)]
    assert [process.communicate()[1].decode() for process in processes] == [""] * 3
    assert schema_version(get_engine()) == HEAD


def test_db_init_makes_the_tables_and_reports_it(database_url, capsys):
    for said in ("tables made (version ", "is up to date (version "):
        with pytest.raises(SystemExit) as ended:
            cli.main(["db", "init"])
        assert ended.value.code == 0
        assert said in capsys.readouterr().out
    ensure_schema(get_engine())


def test_db_init_without_a_database_is_one_plain_line(monkeypatch, capsys):
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:hunter2@127.0.0.1:1/db")
    use_settings(None)
    with pytest.raises(SystemExit) as ended:
        cli.main(["db", "init"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: the database at postgresql+psycopg://user:***@127.0.0.1:1/db")


@pytest.mark.parametrize("url", ["", "nonsense", "nodb://x/y", "postgresql+nodriver://x/y"])
def test_an_invalid_database_url_names_the_setting(url):
    with pytest.raises(InvalidSettings, match="DATABASE_URL: write sqlite:///FILE or postgresql://"):
        open_engine(url)
