"""Reads the rows of one export: those of one tenant, streamed, ordered by the key, in batches of bounded size."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import partial
from itertools import islice
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    JSON,
    Column,
    ColumnElement,
    Connection,
    Float,
    Numeric,
    Table,
    Text,
    cast,
    func,
    literal_column,
    not_,
    select,
)
from sqlalchemy import Boolean as SqlBoolean
from sqlalchemy import Date as SqlDate
from sqlalchemy import DateTime as SqlDateTime
from sqlalchemy import Enum as SqlEnum
from sqlalchemy import Time as SqlTime
from sqlalchemy.dialects.postgresql import INTERVAL
from sqlalchemy.dialects.postgresql.ranges import AbstractMultiRange, AbstractRange

from rqjobs.database import get_engine
from rqjobs.errors import PermanentFailure
from rqjobs.processors.export.conditions import python_type, where
from rqjobs.processors.export.fetching import fetch
from rqjobs.processors.export.reflecting import reflected
from rqjobs.processors.export.values import Batch, normalised
from rqjobs.sources import Source

BATCH = 250
"""Rows in a batch. Thousands would be no faster, and need more memory when each row has 40,000 characters."""

_SPELLED_ALIKE = (
    "SELECT set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO', true),"
    " set_config('IntervalStyle', 'postgres', true)"
)
"""Sets UTC and ISO spelling for this transaction: no moment needs a conversion, and the role's settings do not matter.
"""

_UNREADABLE = (ValueError, TypeError, LookupError, ArithmeticError, RecursionError)
"""The errors that a parser raises for a value in an unknown spelling."""

Convert = Callable[[Sequence[Any]], Sequence[Any]]
Key = int | str | None
"""The key of a batch's last row, which a checkpoint stores; None if the source has no key."""


class Rows(ABC):
    """The rows of one export."""

    columns: Sequence[str]
    """The names of the columns."""
    total: int | None = None
    """The number of rows, if the source can count them in advance."""
    ordered: bool = False
    """Whether reading can resume after a key."""

    @abstractmethod
    def batches(self, after: Key = None) -> Generator[tuple[Batch, Key], None, None]:
        """Yields the batches after the row with key ``after``, each with the key of its last row."""


@contextmanager
def open_rows(source: Source, user_id: str, filters: Mapping[str, object]) -> Iterator[Rows]:
    """Opens the rows of ``source`` that belong to ``user_id`` and match the parsed ``filters``.

    Raises:
        PermanentFailure: the table or a needed column does not exist.
    """
    if source.rows is not None:
        yield _FunctionRows(source, user_id, filters)
        return
    # A long read must not hold SQLite's write lock: see rqjobs.database.
    engine = get_engine()
    with engine.execution_options(sqlite_read=True).connect() as connection, _small_cache(connection):
        table = reflected(engine, connection, source)
        yield _TableRows(connection, table, source, user_id, filters)


@contextmanager
def _small_cache(connection: Connection) -> Iterator[None]:
    """Shrinks SQLite's page cache for this read: each page is read once, so the cache would only use memory."""
    if connection.dialect.name != "sqlite":
        yield
        return
    driver: Any = connection.connection.driver_connection  # ten times as fast as SQLAlchemy for a PRAGMA
    (usual,) = driver.execute("PRAGMA cache_size").fetchone()
    driver.execute("PRAGMA cache_size=-500")
    try:
        yield
    finally:
        driver.execute(f"PRAGMA cache_size={usual}")


class _FunctionRows(Rows):
    def __init__(self, source: Source, user_id: str, filters: Mapping[str, object]) -> None:
        self.columns = source.columns
        assert source.rows is not None
        self._rows = iter(source.rows(user_id, filters))

    def batches(self, after: Key = None) -> Generator[tuple[Batch, Key], None, None]:
        assert after is None  # this source cannot be resumed
        while rows := [self._row(row) for row in islice(self._rows, BATCH)]:
            yield Batch(normalised(list(zip(*rows, strict=True)))), None

    def _row(self, row: Any) -> Sequence[Any]:
        if isinstance(row, Mapping):
            return [row.get(name) for name in self.columns]
        if len(row) != len(self.columns):
            raise PermanentFailure(f"the source's function gave {len(row)} values for {len(self.columns)} columns")
        values: Sequence[Any] = row
        return values


class _TableRows(Rows):
    def __init__(
        self, connection: Connection, table: Table, source: Source, user_id: str, filters: Mapping[str, object]
    ) -> None:
        self._connection = connection
        self._utc = source.utc
        self._table = table
        self.columns = [name for name in source.columns if name in table.c]
        if not self.columns:
            raise PermanentFailure(f"the table {source.table} has none of the columns that {source.name} may export")
        keys = list(table.primary_key.columns)
        self._key = keys[0] if len(keys) == 1 and python_type(keys[0]) in (int, str, UUID) else None
        self.ordered = self._key is not None
        self._where = where(source, table, user_id, filters, sqlite=connection.dialect.name == "sqlite")
        foreign: dict[str, Any] = {}
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(_SPELLED_ALIKE)
            tests = {name: _foreign(table.c[name]) for name in self.columns}
            foreign = {name: func.bool_or(test) for name, test in tests.items() if test is not None}
        counted = select(func.count(), *foreign.values()).select_from(table).where(self._where)
        self.total, *found = connection.execute(counted).one()
        self._texts = {name for name, any_ in zip(foreign, found, strict=True) if any_}
        """Columns with moments or durations that Python does not support, which are read as text."""

    def batches(self, after: Key = None) -> Generator[tuple[Batch, Key], None, None]:
        chosen: list[Any] = [
            cast(self._table.c[name], Text).label(name) if name in self._texts else self._table.c[name]
            for name in self.columns
        ]
        key = self._key
        if key is not None and key not in chosen:
            chosen.append(key)
        query = select(*chosen).where(self._where)
        if key is not None:
            query = query.order_by(key)
            if after is not None:
                query = query.where(key > (UUID(str(after)) if python_type(key) is UUID else after))
        position = chosen.index(key) if key is not None else 0
        converters: list[tuple[int, Convert]] | None = None
        with closing(fetch(self._connection, query, BATCH)) as fetched:
            for rows, codes in fetched:
                if converters is None:
                    converters = self._converters(codes)
                batch = Batch(rows=rows)
                if converters or len(chosen) > len(self.columns):
                    columns = list(batch.columns[: len(self.columns)])
                    for index, convert in converters:
                        columns[index] = convert(columns[index])
                    batch = Batch(columns)
                last = rows[-1][position] if key is not None else None
                # SQLite may keep values of any type in a column; not every one can be stored as a checkpoint.
                yield batch, str(last) if isinstance(last, UUID) else last if isinstance(last, int | str) else None

    def _converters(self, codes: Sequence[Any]) -> list[tuple[int, Convert]]:
        """Returns the conversions that the driver's values still need, each with the index of its column."""
        found = []
        dialect = self._connection.dialect
        for index, (name, code) in enumerate(zip(self.columns, codes, strict=False)):
            kind = self._table.c[name].type
            parse = None
            if dialect.name == "sqlite" or name in self._texts:
                parse = next((p for k, p in _SPELLINGS.items() if isinstance(kind, k)), None)
            if dialect.name == "sqlite" and isinstance(kind, Numeric) and not isinstance(kind, Float):
                parse = partial(_decimal, kind.scale)
            elif parse is None and name not in self._texts:
                parse = kind.dialect_impl(dialect).result_processor(dialect, code)
                if parse is not None and isinstance(kind, ARRAY) and not isinstance(kind.item_type, SqlEnum):
                    parse = partial(_array, parse)
            if parse is not None:
                found.append((index, _each(parse)))
            if self._utc and isinstance(kind, SqlDateTime):
                found.append((index, _in_utc))
            elif isinstance(kind, SqlDateTime) and dialect.name != "postgresql":  # that one returns UTC already
                found.append((index, _normalised))
        return found


def _foreign(column: Column[Any]) -> ColumnElement[bool] | None:
    """Returns the condition that PostgreSQL's value has no counterpart in Python; None if the type has no such values.

    These are infinity, years before 1 or after 9999, 24:00, and intervals with months.
    """
    if isinstance(column.type, SqlDate | SqlDateTime):  # cheaper than a check of the text, for the most common types
        return not_(column.between(literal_column("'0001-01-01'"), literal_column("'9999-12-31 23:59:59.999999'")))
    kind = column.type.item_type if isinstance(column.type, ARRAY) else column.type
    if isinstance(kind, SqlDate | SqlDateTime | SqlTime | AbstractRange | AbstractMultiRange):
        return cast(column, Text).regexp_match(r"infinity|BC|\d{5}-|(^|[{,])24:")
    if isinstance(kind, INTERVAL):  # months have no fixed number of days, and psycopg overflows for long ones
        return cast(column, Text).regexp_match(r"infinity|mon|year|\d{6} ")
    return None


def _normalised(column: Sequence[Any]) -> Sequence[Any]:
    return normalised([column])[0]


def _in_utc(column: Sequence[Any]) -> Sequence[Any]:
    """Returns the column with UTC as the time zone of moments without one, for sources that store UTC."""
    return _normalised(
        [value.replace(tzinfo=UTC) if isinstance(value, datetime) and not value.tzinfo else value for value in column]
    )


def _each(parse: Callable[[Any], Any]) -> Convert:
    """Returns ``parse`` for a whole column; a value that it cannot parse stays as it is."""

    def parse_one(value: Any) -> Any:
        try:
            return None if value is None else parse(value)
        except _UNREADABLE:
            return value

    def convert(column: Sequence[Any]) -> Sequence[Any]:
        with suppress(*_UNREADABLE):
            return list(map(parse, column))
        with suppress(*_UNREADABLE):
            return [None if value is None else parse(value) for value in column]
        return list(map(parse_one, column))

    return convert


def _decimal(scale: int | None, value: Any) -> Any:
    """Returns SQLite's number as a Decimal, with at least the number of decimal places of the column."""
    if value.__class__ not in (int, float):
        return value
    exact = Decimal(str(value))
    return exact if scale is None or (rounded := round(exact, scale)) != exact else rounded


def _array(parse: Callable[[Any], Any], value: Any) -> Any:
    """Parses a list; psycopg returns arrays of domains and of extension types as texts, which stay as they are."""
    return value if isinstance(value, str) else parse(value)


def _but_24(parse: Callable[[Any], Any], example: str) -> Callable[[Any], Any]:
    """Returns ``parse`` without support for 24:00, so that such a value is exported as it is.

    Python 3.14 and later would read it as 00:00.
    """
    try:
        parse(example)
    except ValueError:
        return parse

    def parse_but_24(value: Any) -> Any:
        if _HOUR_24.search(value):
            raise ValueError(value)
        return parse(value)

    return parse_but_24


_HOUR_24 = re.compile(r"(?:^|[T ])T?24(?:$|[:.,+Z-]|[0-5]\d)")
_SPELLINGS: Mapping[type, Callable[[Any], Any]] = {
    SqlBoolean: {0: False, 1: True}.__getitem__,
    SqlDateTime: _but_24(datetime.fromisoformat, "2026-01-31T24:00:00"),
    SqlDate: date.fromisoformat,
    SqlTime: _but_24(time.fromisoformat, "24:00:00"),
    JSON: json.loads,
}
"""The parsers for SQLite, which has no types for moments and JSON: apps store texts of many spellings."""
