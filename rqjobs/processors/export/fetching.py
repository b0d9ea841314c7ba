"""Rows straight from the driver: SQLAlchemy makes the query, and no objects of its own for what comes back."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from typing import Any

from sqlalchemy import Connection, Executable, Select
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ClauseElement

Fetched = Generator[tuple[Sequence[Sequence[Any]], Sequence[Any]], None, None]
"""Rows, and the driver's code for the type of each column."""

_CURSOR = "rqjobs_export"
_AHEAD = 2
"""Batches fetched in advance: with one, server and worker wait for each other equally often."""
_BINARY = {
    getattr(postgresql, name)
    for name in ("BIGINT", "BOOLEAN", "BYTEA", "CHAR", "DATE", "DOUBLE_PRECISION", "INTEGER", "JSON", "JSONB",
                 "NUMERIC", "SMALLINT", "TEXT", "TIME", "TIMESTAMP", "UUID", "VARCHAR")
}  # fmt: skip
"""Types that psycopg reads alike from PostgreSQL's binary form, which costs the server half. Not REAL: as text it is
0.1, in binary 0.10000000149011612; and types unknown to psycopg come as bytes.
"""


def fetch(connection: Connection, query: Select[Any], size: int) -> Fetched:
    """What ``query`` selects, streamed, in lists of ``size`` rows at most."""
    if connection.dialect.driver == "psycopg":
        connection.execute(_Declare(query))
        binary = all(type(column.type) in _BINARY for column in query.selected_columns)
        yield from _fetch_ahead(connection.connection.driver_connection, size, binary=binary)
        return
    with connection.execute(query) as result:
        cursor: Any = result.cursor
        while rows := cursor.fetchmany(size):
            yield rows, [column[1] for column in cursor.description]


def _fetch_ahead(connection: Any, size: int, *, binary: bool) -> Fetched:
    """From the cursor on the server, which works on the next rows while we write these."""
    command = f"FETCH FORWARD {size} FROM {_CURSOR}"
    codes: list[Any] = []
    with connection.pipeline():
        asked = deque([connection.execute(command, binary=binary)])
        while rows := (current := asked.popleft()).fetchall():
            codes = codes or [column.type_code for column in current.description]  # psycopg makes it at each call
            while len(asked) < _AHEAD:
                asked.append(connection.execute(command, binary=binary))
            yield rows, codes


class _Declare(Executable, ClauseElement):
    """A cursor on the server, until the transaction ends. SQLAlchemy's own cannot send rows in binary, or ahead."""

    inherit_cache = False

    def __init__(self, query: Select[Any]) -> None:
        self.query = query


@compiles(_Declare)
def _declare(element: _Declare, compiler: Any, **options: Any) -> str:
    return f"DECLARE {_CURSOR} NO SCROLL CURSOR FOR {compiler.process(element.query, **options)}"
