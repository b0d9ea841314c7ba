"""Reads rows directly from the database driver: SQLAlchemy builds the query, but makes no objects for the results."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from typing import Any

from sqlalchemy import Connection, Executable, Select
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ClauseElement

Fetched = Generator[tuple[Sequence[Sequence[Any]], Sequence[Any]], None, None]
"""Yields lists of rows, each with the driver's type codes of the columns."""

_CURSOR = "rqjobs_export"
_AHEAD = 2
"""Batches requested in advance. With only one, the server idles while the worker writes."""
_BINARY = {
    getattr(postgresql, name)
    for name in ("BIGINT", "BOOLEAN", "BYTEA", "CHAR", "DATE", "DOUBLE_PRECISION", "INTEGER", "JSON", "JSONB",
                 "NUMERIC", "SMALLINT", "TEXT", "TIME", "TIMESTAMP", "UUID", "VARCHAR")
}  # fmt: skip
"""Types that psycopg reads from PostgreSQL's binary format with the same result; it costs the server half the time.

REAL is not among them: the text format gives 0.1, the binary one 0.10000000149011612. A type that psycopg does not
support would arrive as bytes.
"""


def fetch(connection: Connection, query: Select[Any], size: int) -> Fetched:
    """Yields the rows that ``query`` selects, streamed, in lists of at most ``size`` rows."""
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
    """Reads from the server's cursor; the server prepares the next rows while these are written."""
    command = f"FETCH FORWARD {size} FROM {_CURSOR}"
    codes: list[Any] = []
    with connection.pipeline():
        asked = deque([connection.execute(command, binary=binary)])
        while rows := (current := asked.popleft()).fetchall():
            codes = codes or [column.type_code for column in current.description]  # built anew at each access
            while len(asked) < _AHEAD:
                asked.append(connection.execute(command, binary=binary))
            yield rows, codes


class _Declare(Executable, ClauseElement):
    """Declares a cursor on the server, open until the transaction ends.

    SQLAlchemy's own server-side cursors can neither use the binary format nor fetch in advance.
    """

    inherit_cache = False

    def __init__(self, query: Select[Any]) -> None:
        self.query = query


@compiles(_Declare)
def _declare(element: _Declare, compiler: Any, **options: Any) -> str:
    return f"DECLARE {_CURSOR} NO SCROLL CURSOR FOR {compiler.process(element.query, **options)}"
