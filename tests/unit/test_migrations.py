"""The migrations make exactly the tables that the code uses; tests/integration/test_schema.py asks PostgreSQL too."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from rqjobs.database import get_engine, metadata
from rqjobs.database.schema import VERSION_TABLE, init_database, load_tables, migrate


def test_migrations_and_tables_agree():
    engine = get_engine()
    init_database(engine)
    load_tables()
    options = {"version_table": VERSION_TABLE, "compare_type": True, "compare_server_default": True}
    with engine.connect() as connection:
        difference = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    assert difference == [], "change rqjobs/database/migrations/versions/ along with the tables"
    assert set(inspect(engine).get_table_names()) == {*metadata.tables, VERSION_TABLE}


def test_downgrade_leaves_nothing():
    engine = get_engine()
    init_database(engine)
    migrate(engine, "base")
    assert inspect(engine).get_table_names() == [VERSION_TABLE]
