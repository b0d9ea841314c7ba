"""The rows of one export, streamed: of one tenant, in the order of the key, in batches of bounded size."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    JSON,
    Column,
    Connection,
    MetaData,
    Table,
    Text,
    and_,
    cast,
    false,
    func,
    literal,
    or_,
    select,
    type_coerce,
)
from sqlalchemy import Date as SqlDate
from sqlalchemy import DateTime as SqlDateTime
from sqlalchemy import Time as SqlTime
from sqlalchemy.exc import NoSuchTableError
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.types import NullType, String

from rqjobs.database import get_engine
from rqjobs.errors import PermanentFailure
from rqjobs.processors.export.values import Batch
from rqjobs.sources import Filter, Source

BATCH = 500
"""Rows a batch: some hundred are as fast as thousands, and hold less when each has 40,000 characters."""

Key = int | str | None
"""Where a batch ends, as a checkpoint keeps it; None where the source has no such thing."""


class Rows(ABC):
    """The rows of one export."""

    columns: Sequence[str]
    """Their names."""
    total: int | None = None
    """How many there are, if that can be known beforehand."""
    ordered: bool = False
    """Whether reading can go on after a key."""

    @abstractmethod
    def batches(self, after: Key = None) -> Generator[tuple[Batch, Key], None, None]:
        """The batches after the key ``after``, each with its last key."""


@contextmanager
def open_rows(source: Source, user_id: str, filters: Mapping[str, object]) -> Iterator[Rows]:
    """The rows of ``source`` that belong to ``user_id`` and fit the parsed ``filters``.

    Raises:
        PermanentFailure: the table or a needed column does not exist.
    """
    if source.rows is not None:
        yield _FunctionRows(source, user_id, filters)
        return
    # A long read must not hold SQLite's write lock: see rqjobs.database.
    engine = get_engine().execution_options(sqlite_read=True)
    with engine.connect() as connection:
        yield _TableRows(connection, source, user_id, filters)


class _FunctionRows(Rows):
    def __init__(self, source: Source, user_id: str, filters: Mapping[str, object]) -> None:
        self.columns = source.columns
        assert source.rows is not None
        self._rows = iter(source.rows(user_id, filters))

    def batches(self, after: Key = None) -> Generator[tuple[Batch, Key], None, None]:
        assert after is None  # it is never asked to go on
        while rows := [self._row(row) for row in islice(self._rows, BATCH)]:
            yield list(zip(*rows, strict=True)), None

    def _row(self, row: Any) -> Sequence[Any]:
        if isinstance(row, Mapping):
            return [row.get(name) for name in self.columns]
        if len(row) != len(self.columns):
            raise PermanentFailure(f"the source's function gave {len(row)} values for {len(self.columns)} columns")
        values: Sequence[Any] = row
        return values


@dataclass(frozen=True)
class _Selected:
    """A column of the query, and what a batch of its raw values still needs."""

    expression: ColumnElement[Any]
    convert: Callable[[Sequence[Any]], Sequence[Any]] | None


class _TableRows(Rows):
    def __init__(self, connection: Connection, source: Source, user_id: str, filters: Mapping[str, object]) -> None:
        self._connection = connection
        self._sqlite = connection.dialect.name == "sqlite"
        self._table = table = _reflect(connection, source)
        names = [name for name in source.columns if name in table.c]
        if not names:
            raise PermanentFailure(f"the table {source.table} has none of the columns that {source.name} may export")
        self.columns = names
        self._selected = [self._select(table.c[name], utc=source.utc) for name in names]
        keys = list(table.primary_key.columns)
        self._key = keys[0] if len(keys) == 1 else None
        self.ordered = self._key is not None and _python_type(self._key) in (int, str, UUID)
        self._where = and_(
            _tenant(source, table, user_id),
            *(self._condition(source, source.filters[name], value) for name, value in filters.items()),
        )
        if self._sqlite:
            # Each page is read once: a cache would only make the process grow. The connection is not shared after that.
            connection.detach()
            connection.exec_driver_sql("PRAGMA cache_size=-2000")
        elif connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL TIME ZONE 'UTC'")  # spares a conversion for every moment
        self.total = connection.execute(select(func.count()).select_from(table).where(self._where)).scalar_one()

    def batches(self, after: Key = None) -> Generator[tuple[Batch, Key], None, None]:
        key = self._key if self.ordered else None
        expressions = [column.expression for column in self._selected]
        if key is not None and key.name not in self.columns:
            expressions.append(key)
        query = select(*expressions).where(self._where)
        position = 0
        if key is not None:
            position = self.columns.index(key.name) if key.name in self.columns else len(self.columns)
            query = query.order_by(key)
            if after is not None:
                kind = _python_type(key)
                query = query.where(key > (kind(after) if kind is not None else after))
        converters = [(index, column.convert) for index, column in enumerate(self._selected) if column.convert]
        streamed = {"stream_results": True, "yield_per": BATCH}  # PostgreSQL: a cursor on the server
        with self._connection.execute(query, execution_options=streamed) as result:
            for rows in result.partitions(BATCH):
                columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
                last = columns[position][-1] if key is not None else None
                del columns[len(self.columns) :]
                for index, convert in converters:
                    columns[index] = convert(columns[index])
                yield columns, last if isinstance(last, int | None) else str(last)

    def _select(self, column: Column[Any], *, utc: bool) -> _Selected:
        """SQLite has no types for moments and JSON: apps keep many spellings in them, and all are understood."""
        parse = (
            next((p for kind, p in _PARSERS.items() if isinstance(column.type, kind)), None) if self._sqlite else None
        )
        if utc and isinstance(column.type, SqlDateTime):
            return _Selected(_raw(column) if self._sqlite else column, _in_utc(parse))
        return _Selected(_raw(column) if parse else column, parse)

    def _condition(self, source: Source, rule: Filter, value: object) -> ColumnElement[bool]:
        if rule.column not in self._table.c:
            raise PermanentFailure(f"the table {source.table} has no column {rule.column!r} to filter by")
        column = self._table.c[rule.column]
        if rule.match in ("since", "until"):
            assert isinstance(value, datetime)
            return self._moment(column, value, since=rule.match == "since")
        values = value if isinstance(value, list) else [value]
        if rule.match == "contains":
            return or_(*(self._contains(column, item) for item in values))
        if rule.kind == "moment":
            return or_(*(column == item for item in values))
        return or_(*(_equals(column, item) for item in values))

    def _moment(self, column: Column[Any], moment: datetime, *, since: bool) -> ColumnElement[bool]:
        left: ColumnElement[Any] = column
        right: object = moment
        kind = _python_type(column)
        if self._sqlite or kind is str:
            # Text sorts by time once all spellings agree; a date alone is before every time of its day.
            left = func.replace(_raw(column, String()), " ", "T")
            right = moment.strftime("%Y-%m-%d" if moment.time() == time() else "%Y-%m-%dT%H:%M:%S")
        elif kind is date:
            late = not since and moment.time() != time()
            right = moment.date() + timedelta(days=late)
        elif isinstance(column.type, SqlDateTime):
            right = moment if column.type.timezone else moment.replace(tzinfo=None)
        else:
            raise PermanentFailure(f"the column {column.name!r} holds no dates, so it has no range of them")
        return left >= right if since else left < right

    def _contains(self, column: Column[Any], value: object) -> ColumnElement[bool]:
        """An entry of an array, of a JSON list (of texts, or of objects that hold it), or of ``a, b, c``."""
        if isinstance(column.type, ARRAY):
            return literal(value) == func.any(column)
        text = _raw(column, String()) if self._sqlite else cast(column, Text)
        position = func.instr if self._sqlite else func.strpos
        entries = {json.dumps(value), json.dumps(value, ensure_ascii=False)}
        plain = func.replace(text, ", ", ",")
        # Only text that is no JSON is a plain list: in JSON a comma may be part of an entry.
        listed = and_(
            func.substr(func.trim(text), 1, 1).not_in(["[", "{"]),
            position(literal(",") + plain + literal(","), f",{value},") > 0,
        )
        return or_(listed, *(position(text, entry) > 0 for entry in sorted(entries)))


def _raw(column: ColumnElement[Any], kind: Any = None) -> ColumnElement[Any]:
    return type_coerce(column, kind or NullType())


def _reflect(connection: Connection, source: Source) -> Table:
    assert source.table is not None
    schema, _, name = source.table.rpartition(".")
    try:
        return Table(name, MetaData(), schema=schema or None, autoload_with=connection, resolve_fks=False)
    except NoSuchTableError:
        raise PermanentFailure(
            f"there is no table {source.table!r} at DATABASE_URL for the source {source.name!r}; "
            "mend DATABASE_URL, or register the source under the table's name with register_source()"
        ) from None


def _tenant(source: Source, table: Table, user_id: str) -> ColumnElement[bool]:
    if callable(source.tenant):
        rule: ColumnElement[bool] = source.tenant(table, user_id)
        return rule
    if source.tenant not in table.c:
        raise PermanentFailure(
            f"the table {source.table} has no column {source.tenant!r} that tells whose a row is; "
            "register the source with a tenant rule of yours"
        )
    return _equals(table.c[source.tenant], user_id)


def _equals(column: Column[Any], value: object) -> ColumnElement[bool]:
    """``column = value``, ids compared as the column has them; what cannot be one matches nothing."""
    kind = _python_type(column)
    if isinstance(value, str | int) and kind is not None and kind is not type(value):
        try:
            value = kind(value)
        except ValueError:
            return false()
    return column == value


def _python_type(column: Column[Any]) -> type[Any] | None:
    """int, str, UUID, date ...; None where SQLAlchemy does not know."""
    try:
        return column.type.python_type
    except NotImplementedError:
        return None


def _in_utc(parse: Callable[[Sequence[Any]], Sequence[Any]] | None) -> Callable[[Sequence[Any]], Sequence[Any]]:
    def convert(column: Sequence[Any]) -> Sequence[Any]:
        column = parse(column) if parse is not None else column
        return [
            value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value
            for value in column
        ]

    return convert


def _tolerant(parse: Callable[[str], Any]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """What the app wrote in a spelling of its own is exported as it is."""

    def parse_one(value: Any) -> Any:
        try:
            return parse(value)
        except (ValueError, TypeError):
            return value

    def convert(column: Sequence[Any]) -> Sequence[Any]:
        try:
            return list(map(parse, column))
        except (ValueError, TypeError):
            return list(map(parse_one, column))

    return convert


_PARSERS: Mapping[type, Callable[[Sequence[Any]], Sequence[Any]]] = {
    SqlDateTime: _tolerant(datetime.fromisoformat),
    SqlDate: _tolerant(date.fromisoformat),
    SqlTime: _tolerant(time.fromisoformat),
    JSON: _tolerant(json.loads),
}
