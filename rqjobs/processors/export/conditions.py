"""Whose rows and which of them, in SQL: the tenant's condition and one for each filter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from typing import Any

from sqlalchemy import ARRAY, Column, Table, Text, and_, cast, false, func, literal, or_, type_coerce
from sqlalchemy import DateTime as SqlDateTime
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.types import NullType, String

from rqjobs.errors import PermanentFailure
from rqjobs.sources import Filter, Source


def where(
    source: Source, table: Table, user_id: str, filters: Mapping[str, object], *, sqlite: bool
) -> ColumnElement[bool]:
    """The condition on ``table`` for the rows of ``user_id`` that fit the parsed ``filters``.

    Raises:
        PermanentFailure: the table lacks a column, or one has no order that a date range could use.
    """
    chosen = [_condition(source, table, source.filters[name], value, sqlite=sqlite) for name, value in filters.items()]
    return and_(_tenant(source, table, user_id), *chosen)


def raw(column: ColumnElement[Any], kind: Any = None) -> ColumnElement[Any]:
    """``column`` as the database has it, without SQLAlchemy's idea of its type."""
    return type_coerce(column, kind or NullType())


def python_type(column: Column[Any]) -> type[Any] | None:
    """int, str, UUID, date ...; None where SQLAlchemy does not know."""
    try:
        return column.type.python_type
    except NotImplementedError:
        return None


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


def _condition(source: Source, table: Table, rule: Filter, value: object, *, sqlite: bool) -> ColumnElement[bool]:
    if rule.column not in table.c:
        raise PermanentFailure(f"the table {source.table} has no column {rule.column!r} to filter by")
    column = table.c[rule.column]
    if rule.match in ("since", "until"):
        assert isinstance(value, datetime)
        return _moment(column, value, since=rule.match == "since", sqlite=sqlite)
    values = value if isinstance(value, list) else [value]
    if rule.match == "contains":
        return or_(*(_contains(column, item, sqlite=sqlite) for item in values))
    if rule.kind == "moment":
        return or_(*(column == item for item in values))
    return or_(*(_equals(column, item) for item in values))


def _equals(column: Column[Any], value: object) -> ColumnElement[bool]:
    """``column = value``, ids compared as the column has them; what cannot be one matches nothing."""
    kind = python_type(column)
    if isinstance(value, str | int) and kind is not None and kind is not type(value):
        try:
            value = kind(value)
        except ValueError:
            return false()
    return column == value


def _moment(column: Column[Any], moment: datetime, *, since: bool, sqlite: bool) -> ColumnElement[bool]:
    left: ColumnElement[Any] = column
    right: object = moment
    kind = python_type(column)
    if sqlite or kind is str:
        # Text sorts by time once all spellings agree; a date alone is before every time of its day.
        left = func.replace(raw(column, String()), " ", "T")
        right = moment.strftime("%Y-%m-%d" if moment.time() == time() else "%Y-%m-%dT%H:%M:%S")
    elif kind is date:
        late = not since and moment.time() != time()
        right = moment.date() + timedelta(days=late)
    elif isinstance(column.type, SqlDateTime):
        right = moment if column.type.timezone else moment.replace(tzinfo=None)
    else:
        raise PermanentFailure(f"the column {column.name!r} holds no dates, so it has no range of them")
    return left >= right if since else left < right


def _contains(column: Column[Any], value: object, *, sqlite: bool) -> ColumnElement[bool]:
    """An entry of an array, of a JSON list (of texts, or of objects that hold it), or of ``a, b, c``."""
    if isinstance(column.type, ARRAY):
        return literal(value) == func.any(column)
    text = raw(column, String()) if sqlite else cast(column, Text)
    position = func.instr if sqlite else func.strpos
    entries = {json.dumps(value), json.dumps(value, ensure_ascii=False)}
    plain = func.replace(text, ", ", ",")
    # Only text that is no JSON is a plain list: in JSON a comma may be part of an entry.
    listed = and_(
        func.substr(func.trim(text), 1, 1).not_in(["[", "{"]),
        position(literal(",") + plain + literal(","), f",{value},") > 0,
    )
    return or_(listed, *(position(text, entry) > 0 for entry in sorted(entries)))
