"""Makes our tables in the database of ``manage.py test`` or pytest-django, so that tests never use the real one."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections

_names: dict[str, str] = {}
"""The names of the project's databases by alias, before tests change them."""

_folder = ""


def remember_databases() -> None:
    """Records the names of the project's databases; a database with another name is a test database."""
    if not _names:
        _names.update({alias: str(each.get("NAME", "")) for alias, each in settings.DATABASES.items()})


def is_test_database(alias: str = DEFAULT_DB_ALIAS) -> bool:
    """Returns whether Django's test runner has made the database of this alias."""
    return alias in _names and str(settings.DATABASES[alias].get("NAME", "")) != _names[alias]


def database_for_tests() -> str | None:
    """Returns a temporary file as DATABASE_URL, for tests with an in-memory database.

    Other connections cannot use that one.
    """
    global _folder  # noqa: PLW0603
    if not is_test_database():
        return None
    if not _folder:
        _folder = tempfile.mkdtemp(prefix="rqjobs-django-test-")
        atexit.register(shutil.rmtree, _folder, ignore_errors=True)
    return f"sqlite:///{_folder}/rqjobs.db"


def make_tables(using: str) -> bool:
    """Makes our tables in the test database of this alias, so that ``outbox=connection`` works.

    If they exist, the outbox is emptied, because a ``TransactionTestCase`` flushes only Django's tables.

    Returns:
        Whether they were made now.
    """
    from sqlalchemy.dialects import postgresql, sqlite
    from sqlalchemy.schema import CreateIndex, CreateTable

    from rqjobs.database import metadata
    from rqjobs.database.outbox import outbox
    from rqjobs.database.schema import HEAD, VERSION_TABLE, load_tables

    connection: Any = connections[using]
    if connection.vendor not in ("sqlite", "postgresql"):
        return False
    with connection.cursor() as cursor:
        present = [name for name in connection.introspection.table_names(cursor) if name.startswith("rqjobs_")]
        if VERSION_TABLE in present:  # kept from an earlier run by --keepdb
            cursor.execute(f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608  # a constant
            if cursor.fetchone() == (HEAD,):
                cursor.execute(f"DELETE FROM {outbox.name}")  # noqa: S608  # a constant
                return False
        for name in present:
            cursor.execute(f"DROP TABLE {connection.ops.quote_name(name)}")
        load_tables()
        dialect = (sqlite if connection.vendor == "sqlite" else postgresql).dialect()
        for table in metadata.sorted_tables:
            cursor.execute(str(CreateTable(table).compile(dialect=dialect)))
            for index in table.indexes:
                cursor.execute(str(CreateIndex(index).compile(dialect=dialect)))
        cursor.execute(f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
        cursor.execute(f"INSERT INTO {VERSION_TABLE} VALUES (%s)", [HEAD])  # noqa: S608  # a constant
    return True
