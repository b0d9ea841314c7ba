"""Decides which errors mean that the database is unavailable for all connections, instead of a fault of one statement.

PostgreSQL (appendix A of its manual): no connection at all; the classes 08 (connection), 28 (login), 53 (disk, memory
or connections are used up), 58 (a system error); 57P01 to 57P05 (shut down, starting, dropped); 3D000 (no such
database); 25006 (read only: a standby after a failover). Not 57014 (a statement's own time limit), not 40xxx (a
deadlock).
SQLite (sqlite.org/rescode.html): full, I/O error, cannot be opened, read only, locked for 30 s, no memory, corrupt, no
database. Not "no such table" and not a constraint.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from rqjobs.errors import DependencyUnavailable, InvalidSettings

DEPENDENCY = "database"
"""The name under which health, alerts and metrics show the database at DATABASE_URL."""

_CLASSES = ("08", "28", "53", "58")
_STATES = {"57P01", "57P02", "57P03", "57P04", "57P05", "3D000", "25006"}
_SQLITE = {
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
}  # fmt: skip


def database_outage(error: BaseException) -> DependencyUnavailable | None:
    """Returns the outage that caused ``error``; None if the statement is the cause.

    ``error`` is one of SQLAlchemy, of the driver, or of rqjobs.
    """
    if isinstance(error, DependencyUnavailable):  # DatabaseUnavailable and SchemaMismatch are
        return error
    if isinstance(error, PoolTimeout):
        return DependencyUnavailable(DEPENDENCY, f"no connection is free: {error.args[0] if error.args else error}")
    if isinstance(error, InvalidSettings):  # DATABASE_URL is invalid
        return DependencyUnavailable(DEPENDENCY, " ".join(error.faults))
    driver_error = error.orig if isinstance(error, DBAPIError) else error
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    if driver_error is None or not (lost or _is_outage(driver_error)):
        return None
    lines = str(driver_error).strip().splitlines()
    return DependencyUnavailable(DEPENDENCY, lines[0] if lines else type(driver_error).__name__)


@contextmanager
def database_outages() -> Iterator[None]:
    """Raises errors that mean an outage of the database as DependencyUnavailable; all others pass unchanged."""
    try:
        yield
    except Exception as error:
        outage = database_outage(error)
        if outage is None or outage is error:
            raise
        raise outage from error


def _is_outage(error: BaseException) -> bool:
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in _SQLITE  # the low byte: the primary code
    if not type(error).__module__.startswith("psycopg"):
        return False
    if state := getattr(error, "sqlstate", None):
        return state[:2] in _CLASSES or state in _STATES
    # An error without a state comes from the driver: there is no connection, or it broke.
    return any(kind.__name__ in ("OperationalError", "InterfaceError") for kind in type(error).__mro__)
