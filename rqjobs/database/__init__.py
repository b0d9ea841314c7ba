"""The database at DATABASE_URL: one engine per process, SQLite tuned for several processes, our tables' metadata."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, MetaData, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from rqjobs.config.private_files import make_private_file, make_private_folder
from rqjobs.config.settings import close_data_folder, get_settings
from rqjobs.errors import InvalidSettings

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""All tables of rqjobs, each named ``rqjobs_...`` so that it cannot conflict with a table of the app."""

_FORMS = "write sqlite:///FILE or postgresql://user:password@host/name"

_lock = threading.Lock()
_shared: tuple[int, str, Engine] | None = None


def open_engine(url: str) -> Engine:
    """Returns a new engine for ``url``; ``postgresql://`` means the psycopg 3 driver.

    SQLite runs in WAL mode with short, immediate write transactions, and waits up to 30 s for a lock.

    Raises:
        InvalidSettings: ``url`` is not a database URL, or its driver is not installed.
    """
    try:
        parsed = make_url(url)
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() != "sqlite":
            return create_engine(parsed, pool_pre_ping=True)
    except (ArgumentError, NoSuchModuleError):
        raise InvalidSettings([f"DATABASE_URL: {_FORMS}"]) from None
    except ImportError as error:
        raise InvalidSettings([f"DATABASE_URL: {error}; install it with: pip install 'rqjobs[postgres]'"]) from None
    if parsed.database and parsed.database != ":memory:" and not parsed.database.startswith("file:"):
        _make_file(Path(parsed.database))
    engine = create_engine(parsed, connect_args={"timeout": 30})
    event.listen(engine, "connect", _tune_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _make_file(file: Path) -> None:
    """Makes the file for this user only; SQLite gives the files beside it the same mode."""
    try:
        close_data_folder()
        make_private_folder(file.parent)
        if not file.exists():
            make_private_file(file)
    except OSError as error:
        fault = f"DATABASE_URL: the file {file} cannot be made: {error.strerror}"
        raise InvalidSettings([fault]) from None


def _tune_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # _begin_sqlite sends BEGIN itself
    # The cache (in KiB) has room for the pages that a batch changes and the inner ones of large indexes; the log is
    # written back after 64 MB, not 4; a statement's undo log stays in memory instead of a file.
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=30000", "foreign_keys=ON",
                   "cache_size=-65536", "wal_autocheckpoint=16000", "temp_store=MEMORY"):  # fmt: skip
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Any) -> None:
    # IMMEDIATE takes the write lock at once, so a transaction that first reads cannot fail at its first write.
    # Readers that must not wait for it use execution_options(sqlite_read=True).
    read = connection.get_execution_options().get("sqlite_read", False)
    connection.exec_driver_sql("BEGIN" if read else "BEGIN IMMEDIATE")


def get_engine() -> Engine:
    """Returns the engine of this process for DATABASE_URL, made at the first call, and again after a fork."""
    global _shared  # noqa: PLW0603
    url = get_settings().database_url.get_secret_value()
    with _lock:
        if _shared is None or _shared[:2] != (os.getpid(), url):
            _shared = (os.getpid(), url, open_engine(url))
        return _shared[2]
