"""The table of the transactional outbox, and inserts into it in a transaction of the app."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Boolean, Column, ColumnElement, Float, String, Table, Text, insert, literal_column

from rqjobs.database import metadata
from rqjobs.errors import RQJobsError

outbox = Table(
    "rqjobs_outbox",
    metadata,
    Column("token", String(32), primary_key=True),  # sorts by time
    Column("job_id", String(128), nullable=False),
    Column("lane", String(255), nullable=False),
    Column("due", Float(53)),  # Unix time by the app's clock; only older versions of rqjobs write it
    Column("only_once", Boolean, nullable=False),  # `unique` of the call
    Column("fields", Text, nullable=False),  # the job's hash, as JSON
    Column("created_at", Float(53), nullable=False),  # Unix time by the database's clock, see database_time
)

_TIME = {
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
    "postgresql": "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)",
}


def database_time(dialect: str) -> str:
    """Returns SQL for the Unix time by the database's clock, which all writers and readers share.

    Args:
        dialect: its name in SQLAlchemy: ``sqlite`` or ``postgresql``.
    """
    return _TIME["sqlite" if dialect == "sqlite" else "postgresql"]


class OutboxError(RQJobsError):
    """The job could not be written to the outbox; the caller should roll the transaction back."""


def store(target: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Inserts ``rows`` in the transaction of ``target``.

    Args:
        target: a SQLAlchemy session or connection, or one of Django or DB-API.
        rows: for each job a mapping of every column except ``created_at``.

    Raises:
        OutboxError: ``target`` is none of these, or the table does not exist; the message names the fix.
    """
    if hasattr(target, "execute") and (hasattr(target, "get_bind") or hasattr(target, "dialect")):
        insertion = _store_by_sqlalchemy
    elif hasattr(target, "cursor"):
        insertion = _store_plain
    else:
        raise OutboxError(
            f"outbox: a {type(target).__name__} is neither a SQLAlchemy session or connection nor a Django or DB-API "
            "one; with an AsyncSession: await aenqueue_...(..., outbox=session)"
        )
    try:
        insertion(target, rows)
    except Exception as error:
        if "rqjobs_outbox" in str(error) and ("no such table" in str(error) or "does not exist" in str(error)):
            raise OutboxError("the database of this transaction has no table rqjobs_outbox: rqjobs db init") from error
        raise


def _store_by_sqlalchemy(target: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    statement = insert(outbox)
    bind = target.get_bind(clause=statement) if hasattr(target, "get_bind") else target
    time: ColumnElement[float] = literal_column(database_time(bind.dialect.name))
    target.execute(statement.values(created_at=time), [dict(row) for row in rows])


def _store_plain(target: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    # Django accepts %s for every database; of the DB-API drivers only sqlite3 needs a question mark.
    sqlite = isinstance(target, sqlite3.Connection)
    mark = "?" if sqlite else "%s"
    time = database_time("sqlite" if sqlite else getattr(target, "vendor", "postgresql"))  # Django's own has a vendor
    names = [column.name for column in outbox.columns if column.name != "created_at"]
    columns, values = ", ".join(["created_at", *names]), ", ".join([time, *[mark] * len(names)])
    statement = f"INSERT INTO {outbox.name} ({columns}) VALUES ({values})"  # noqa: S608  # our own names
    cursor = target.cursor()
    try:
        cursor.executemany(statement, [[row[name] for name in names] for row in rows])
    finally:
        cursor.close()
