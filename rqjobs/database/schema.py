"""The version of the tables: a cheap check before they are used, and Alembic to make them (``rqjobs db init``)."""

from __future__ import annotations

import importlib
import pkgutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError, ProgrammingError

import rqjobs.database
from rqjobs.errors import DatabaseUnavailable, SchemaMismatch

HEAD = "0004"
"""The newest migration. A constant, so that the check needs no Alembic; a test compares it with the scripts."""

VERSION_TABLE = "rqjobs_schema_version"
"""Alembic's version table under our own name, because an app may use ``alembic_version``."""

_LOCK = 0x72716A6F6273  # "rqjobs": PostgreSQL's advisory lock, so that only one `db init` runs at a time
_checked: weakref.WeakSet[Engine] = weakref.WeakSet()


def load_tables() -> None:
    """Imports every module with tables, so that ``metadata`` is complete."""
    for module in pkgutil.iter_modules(rqjobs.database.__path__):
        if module.name not in ("schema", "outages", "migrations"):
            importlib.import_module(f"rqjobs.database.{module.name}")


def ensure_schema(engine: Engine) -> None:
    """Checks that our tables exist and are up to date; one SELECT at an engine's first call, then nothing.

    On SQLite missing tables are made. PostgreSQL is only checked: run ``rqjobs db init`` as its owner.

    Raises:
        SchemaMismatch: the tables are missing, old, or newer than this rqjobs; the message names the fix.
        DatabaseUnavailable: the database does not answer.
    """
    if engine in _checked:
        return
    version = schema_version(engine)
    if version != HEAD:
        if engine.dialect.name != "sqlite":
            raise SchemaMismatch(engine.url.render_as_string(), version, HEAD)
        init_database(engine)
    _checked.add(engine)


def schema_version(engine: Engine) -> str | None:
    """Returns the migration of the database's tables; None if they have never been made.

    Raises:
        DatabaseUnavailable: the database does not answer.
    """
    with _plain_errors(engine), engine.connect().execution_options(sqlite_read=True) as connection:
        try:
            version = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608  # a constant
        except (OperationalError, ProgrammingError) as error:
            if _is_missing_table(error):
                return None
            raise
    return None if version is None else str(version)


def init_database(engine: Engine) -> None:
    """Makes the tables, or upgrades them, in one transaction; concurrent callers wait for each other.

    Raises:
        SchemaMismatch: a newer rqjobs has made the tables.
        DatabaseUnavailable: the database does not answer.
    """
    version = schema_version(engine)
    if version is not None and version > HEAD:
        raise SchemaMismatch(engine.url.render_as_string(), version, HEAD)
    migrate(engine, "head")


def migrate(engine: Engine, revision: str) -> None:
    """Migrates the tables to ``revision`` of Alembic's scripts in this package; ``base`` drops them."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "rqjobs.database:migrations")
    config.set_main_option("path_separator", "os")
    with _plain_errors(engine), engine.begin() as connection:
        _take_turns(connection)
        config.attributes["connection"] = connection
        (command.downgrade if revision == "base" else command.upgrade)(config, revision)


@contextmanager
def _plain_errors(engine: Engine) -> Iterator[None]:
    try:
        yield
    except DatabaseError as error:
        reason = (str(error.orig).splitlines() or [type(error.orig).__name__])[0]
        raise DatabaseUnavailable(engine.url.render_as_string(), reason) from error


def _take_turns(connection: Connection) -> None:
    # On SQLite BEGIN IMMEDIATE (rqjobs.database) does this already.
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def _is_missing_table(error: DBAPIError) -> bool:
    return getattr(error.orig, "sqlstate", None) == "42P01" or "no such table" in str(error.orig)
