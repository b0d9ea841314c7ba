"""Reflects the app's tables from the database: once, and again after a change."""

from __future__ import annotations

import weakref
from typing import Any

from sqlalchemy import Column, Connection, Engine, MetaData, Table, inspect, text
from sqlalchemy.dialects.postgresql import DOMAIN
from sqlalchemy.exc import NoSuchTableError
from sqlalchemy.types import TypeEngine

from rqjobs.errors import PermanentFailure
from rqjobs.sources import Source

_STAMPS = {
    "sqlite": "SELECT p.schema_version, m.sql FROM pragma_schema_version p, sqlite_master m"
    " WHERE m.name = :name COLLATE NOCASE",
    "postgresql": "SELECT attname, atttypid, atttypmod,"
    " (SELECT conkey FROM pg_constraint WHERE conrelid = to_regclass(:name) AND contype = 'p'),"
    " (SELECT array_agg(enumlabel ORDER BY enumsortorder) FROM pg_type t JOIN pg_enum ON enumtypid IN (t.oid, typelem)"
    " WHERE t.oid = atttypid)"
    " FROM pg_attribute WHERE attrelid = to_regclass(:name) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
}
"""Per database a cheap query whose result changes with the table. Without one, each export reflects the table."""

_known: weakref.WeakKeyDictionary[Engine, dict[str, tuple[list[Any], Table]]] = weakref.WeakKeyDictionary()


def reflected(engine: Engine, connection: Connection, source: Source) -> Table:
    """Returns the source's table with its columns and primary key.

    The table is cached: reflecting takes 3 ms with PostgreSQL, and the same object keeps its compiled queries.

    Raises:
        PermanentFailure: the table does not exist.
    """
    assert source.table is not None
    quote = connection.dialect.identifier_preparer.quote
    name = ".".join(quote(part) for part in source.table.rpartition(".")[::2] if part)
    question = _STAMPS.get(connection.dialect.name)
    stamp = [] if question is None else [tuple(row) for row in connection.execute(text(question), {"name": name})]
    known = _known.setdefault(engine, {})
    if source.table not in known or not stamp or known[source.table][0] != stamp:
        known[source.table] = stamp, _reflect(connection, source)
    return known[source.table][1]


def _reflect(connection: Connection, source: Source) -> Table:
    """Reflects only columns and primary key: a Table with ``autoload_with`` sends eight more queries."""
    assert source.table is not None
    schema, _, name = source.table.rpartition(".")
    inspector = inspect(connection)
    try:
        columns = inspector.get_columns(name, schema or None)
        keys = inspector.get_pk_constraint(name, schema or None)["constrained_columns"]
    except NoSuchTableError:
        raise PermanentFailure(
            f"there is no table {source.table!r} at DATABASE_URL for the source {source.name!r}; "
            "fix DATABASE_URL, or register the source under the table's name with register_source()"
        ) from None
    made = (Column(column["name"], _base(column["type"]), primary_key=column["name"] in keys) for column in columns)
    return Table(name, MetaData(), *made, schema=schema or None)


def _base(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    """Returns the base type of a domain; any other type as it is."""
    while isinstance(kind, DOMAIN):
        kind = kind.data_type
    return kind
