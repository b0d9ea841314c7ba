"""One batch of events into the database: raw rows, visitors and counts in one transaction, each event once."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, Table, text

from rqjobs.database.analytics import QUARTER_COLUMNS, counts, visitors
from rqjobs.database.analytics import events as events_table
from rqjobs.processors.analytics.events import QREvent
from rqjobs.processors.analytics.tally import Cell, Visit, VisitorKey, by_week, merge_visits, tally, visits

_LOCK = 0x72716A_7172  # "rqj", "qr"
_EVENT_COLUMNS = (*QREvent._fields, "recorded_at")
_VISITOR_COLUMNS = ("day", "scope", "visitor", "first", "again", "seen_on")
_KEEP_VISITOR = (
    "ON CONFLICT (day, scope, visitor) DO UPDATE SET "
    "first = excluded.first, again = excluded.again, seen_on = excluded.seen_on"
)


def store(engine: Engine, events: Sequence[QREvent]) -> set[str]:
    """Stores and counts those of ``events`` that are not stored yet; all of them or, if it raises, none.

    Batches take turns: on SQLite by its one writer, on PostgreSQL by an advisory lock. They all add to the same
    rows (the counts of today), so they would wait for each other anyway; taking turns, they cannot deadlock.

    Returns:
        The event ids that are new.
    """
    by_id: dict[str, QREvent] = {}
    for event in events:
        by_id.setdefault(event.event_id, event)
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        known = _known_ids(connection, list(by_id))
        fresh = [event for event_id, event in by_id.items() if event_id not in known]
        if fresh:
            now = datetime.now(UTC)
            _insert(connection, events_table, _EVENT_COLUMNS, _event_rows(connection, fresh, now))
            cells = tally(fresh)
            cells.update(_meet(connection, visits(fresh), now.date().isoformat()))
            _count(connection, cells)
    return {event.event_id for event in fresh}


def _known_ids(connection: Connection, ids: list[str]) -> set[str]:
    if connection.dialect.name == "postgresql":
        condition, parameter = "= ANY(%s)", ids
    else:
        condition, parameter = "IN (SELECT value FROM json_each(?))", json.dumps(ids)  # type: ignore[assignment]
    statement = f"SELECT event_id FROM {events_table.name} WHERE event_id {condition}"  # noqa: S608  # constants
    return set(connection.exec_driver_sql(statement, (parameter,)).scalars())


def _event_rows(connection: Connection, events: Sequence[QREvent], now: datetime) -> list[tuple[Any, ...]]:
    if connection.dialect.name == "postgresql":
        return [(*event[:-1], _json(event.extra), now) for event in events]
    stamp = _sqlite_time(now)
    return [(*event[:5], _sqlite_time(event.occurred_at), *event[6:-1], _json(event.extra), stamp) for event in events]


def _json(extra: Mapping[str, Any] | None) -> str | None:
    return None if extra is None else json.dumps(extra)


def _sqlite_time(moment: datetime) -> str:
    """As SQLAlchemy's DateTime stores and reads it on SQLite: without the offset, which is always UTC's."""
    return moment.isoformat(" ", "microseconds")[:26]


def _meet(connection: Connection, new: dict[VisitorKey, Visit], today: str) -> Counter[Cell]:
    """Notes the visitors of the batch, and says what that changes in the counts."""
    changed, cells = merge_visits(new, _known_visits(connection, list(new)))
    rows = [(*key, *visit, today) for key, visit in changed.items()]
    _insert(connection, visitors, _VISITOR_COLUMNS, rows, _KEEP_VISITOR)
    return cells


def _known_visits(connection: Connection, keys: list[VisitorKey]) -> dict[VisitorKey, Visit]:
    columns = "v.day, v.scope, v.visitor, v.first, v.again"
    if connection.dialect.name == "postgresql":
        statement = (
            f"SELECT {columns} FROM {visitors.name} v "  # noqa: S608  # constants
            "JOIN unnest(%s::date[], %s::text[], %s::text[]) AS k (day, scope, visitor) USING (day, scope, visitor)"
        )
        parameters: tuple[Any, ...] = tuple(list(column) for column in zip(*keys, strict=True)) or ([], [], [])
    else:
        statement = (
            f"SELECT {columns} FROM json_each(?) k CROSS JOIN {visitors.name} v "  # noqa: S608  # constants
            "ON v.day = k.value ->> 0 AND v.scope = k.value ->> 1 AND v.visitor = k.value ->> 2"
        )
        parameters = (json.dumps(keys),)
    return {
        VisitorKey(str(day), scope, visitor): Visit(first, bool(again))
        for day, scope, visitor, first, again in connection.exec_driver_sql(statement, parameters)
    }


def _count(connection: Connection, cells: Counter[Cell]) -> None:
    conflict = f"ON CONFLICT (scope, metric, day, value) DO UPDATE SET total = {counts.name}.total + excluded.total"
    weeks = [(*row, number) for row, number in by_week(cells).items()]
    _insert(connection, counts, ("scope", "metric", "day", "value", "total"), weeks, conflict)
    by_quarter: defaultdict[int, list[tuple[Any, ...]]] = defaultdict(list)
    for cell, number in cells.items():
        by_quarter[cell[4]].append((*cell[:4], number, number))
    for quarter, rows in by_quarter.items():
        column = QUARTER_COLUMNS[quarter]
        add = f"{conflict}, {column} = coalesce({counts.name}.{column}, 0) + excluded.{column}"
        _insert(connection, counts, ("scope", "metric", "day", "value", "total", column), rows, add)


def _insert(
    connection: Connection, table: Table, columns: Sequence[str], rows: Sequence[tuple[Any, ...]], conflict: str = ""
) -> None:
    """Many rows in one statement: an array a column on PostgreSQL, a prepared statement's loop on SQLite."""
    if not rows:
        return
    into = f"INSERT INTO {table.name} ({', '.join(columns)})"
    if connection.dialect.name == "postgresql":
        arrays = ", ".join(f"%s::{table.c[name].type.compile(connection.dialect)}[]" for name in columns)
        values = tuple(list(column) for column in zip(*rows, strict=True))
        select = f"SELECT * FROM unnest({arrays})"  # noqa: S608  # names of our own columns and types
        connection.exec_driver_sql(f"{into} {select} {conflict}", values)
    else:
        marks = ", ".join("?" * len(columns))
        connection.exec_driver_sql(f"{into} VALUES ({marks}) {conflict}", list(rows))
