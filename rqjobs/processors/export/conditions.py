"""Builds the WHERE clause of an export: the condition on the tenant, and one condition for each filter."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    Enum,
    Numeric,
    Table,
    Text,
    and_,
    cast,
    false,
    func,
    literal,
    or_,
    type_coerce,
)
from sqlalchemy import DateTime as SqlDateTime
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.types import NullType, String

from rqjobs.errors import PermanentFailure
from rqjobs.sources import Filter, Source

_NUMBER = re.compile(r"(?!-[0.]+\Z)-?(0|[1-9]\d{0,30})(\.\d{1,30})?", re.ASCII)
"""A number in the spelling of databases. ``-0`` does not match: it is another text than ``0``, but the same user."""
_UUID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


def where(
    source: Source, table: Table, user_id: str, filters: Mapping[str, object], *, sqlite: bool
) -> ColumnElement[bool]:
    """Returns the condition on ``table`` for the rows of ``user_id`` that match the parsed ``filters``.

    Raises:
        PermanentFailure: the table lacks a column, or a date range is on a column whose type has no order.
    """
    chosen = [_condition(source, table, source.filters[name], value, sqlite=sqlite) for name, value in filters.items()]
    return and_(_tenant(source, table, user_id), *chosen)


def raw(column: ColumnElement[Any], kind: Any = None) -> ColumnElement[Any]:
    """Returns ``column`` with the type that the driver returns, without SQLAlchemy's conversion."""
    return type_coerce(column, kind or NullType())


def python_type(column: Column[Any]) -> type[Any] | None:
    """Returns the Python type of the column's values (int, str, UUID ...); None if SQLAlchemy has none."""
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
            f"the table {source.table} has no column {source.tenant!r} for the owner of a row; "
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
        return or_(*(_within_second(column, item, sqlite=sqlite) for item in values))
    return or_(*(_equals(column, item) for item in values))


def _equals(column: Column[Any], value: object) -> ColumnElement[bool]:
    """Returns the condition ``column = value``; a value that the column cannot hold matches no row.

    The spelling must be exact, because the condition decides about the owner of a row: ``int()`` also reads " 10"
    and "1_0" as 10.
    """
    kind: Any = str if isinstance(column.type, Enum) else python_type(column)
    text = _spelled(value)
    if kind in (int, float, Decimal):
        text = str(int(value)) if isinstance(value, bool) else text
        spelled = _NUMBER.fullmatch(text) and not (kind is int and isinstance(value, str) and "." in text)
        return column == _number(text, kind) if spelled else false()
    if kind is UUID:
        return column == UUID(text) if _UUID.fullmatch(text) else false()
    if "\x00" in text or (kind is bool and text not in ("true", "false")):  # PostgreSQL's texts have no NUL
        return false()
    if kind is bool:
        return column == (text == "true")
    exotic = kind not in (str, None) or isinstance(column.type, Enum)
    return (cast(column, Text) if exotic else column) == text


def _spelled(value: object) -> str:
    """Returns the value in the spelling of databases: Booleans in lower case."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number(text: str, kind: type) -> ColumnElement[Any]:
    """Returns the number as an exact SQL expression, which may exceed the range of the column's type."""
    whole = kind is int and text.lstrip("-").isdecimal() and -(2**63) <= int(text) < 2**63
    return literal(int(text), BigInteger()) if whole else cast(literal(text, Text()), Numeric())


def _moment(column: Column[Any], moment: datetime, *, since: bool, sqlite: bool) -> ColumnElement[bool]:
    """Returns the condition that ``column`` is at or after ``moment``, or before it.

    A date without a time is the beginning of its day, 00:00 UTC.
    """
    left: ColumnElement[Any] = column
    right: object = moment
    kind = python_type(column)
    if sqlite or kind is str:
        # Texts sort by time if all have one spelling; a date without a time sorts before every time of its day.
        left = func.replace(raw(column, String()), " ", "T")
        right = _spelled_moment(moment)
    elif kind is date:
        if moment.time() != time():  # a date without a time is the beginning of its day, and this is later
            return column > moment.date() if since else column <= moment.date()
        right = moment.date()
    elif isinstance(column.type, SqlDateTime):
        right = moment if column.type.timezone else moment.replace(tzinfo=None)
    else:
        raise PermanentFailure(f"the column {column.name!r} holds no dates, so it has no range of them")
    return left >= right if since else left < right


def _spelled_moment(moment: datetime) -> str:
    if moment.time() == time():
        return moment.date().isoformat()
    text = moment.replace(tzinfo=None).isoformat()
    return text.rstrip("0") if moment.microsecond else text  # "10:00:00.5" sorts before "10:00:00.500000"


def _within_second(column: Column[Any], moment: Any, *, sqlite: bool) -> ColumnElement[bool]:
    """Returns the condition ``column = moment`` to the second: SQLite's texts may have fractions or not."""
    later = moment + timedelta(seconds=1)
    return and_(_moment(column, moment, since=True, sqlite=sqlite), _moment(column, later, since=False, sqlite=sqlite))


def _contains(column: Column[Any], value: object, *, sqlite: bool) -> ColumnElement[bool]:
    """Returns the condition that ``column`` has the entry ``value``.

    The column is an array, a JSON list (of texts, or of objects that hold the value), or a text ``a, b, c``.
    """
    if isinstance(column.type, ARRAY):
        return literal(_spelled(value)) == func.any(cast(column, ARRAY(Text)))
    text = raw(column, String()) if sqlite else cast(column, Text)
    position = func.instr if sqlite else func.strpos
    if not isinstance(value, str):  # numbers have no quotes in JSON: 5 must not match [15]
        for sign in " []{}:":
            text = func.replace(text, sign, ",")
        return position(literal(",") + text + literal(","), f",{json.dumps(value)},") > 0
    entries = {json.dumps(value), json.dumps(value, ensure_ascii=False)}
    plain = func.replace(text, ", ", ",")
    # Only text that is not JSON is read as "a, b, c": in JSON a comma may be part of an entry.
    listed = and_(
        func.substr(func.trim(text), 1, 1).not_in(["[", "{"]),
        position(literal(",") + plain + literal(","), f",{value},") > 0,
    )
    return or_(listed, *(position(text, entry) > 0 for entry in sorted(entries)))
