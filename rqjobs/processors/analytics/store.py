"""Stores a batch of events: raw rows, visitors and counts in one transaction, each event once."""

from __future__ import annotations

import json
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from sqlalchemy import Connection, Engine, Table, func, select, text

from rqjobs.database.analytics import counts, visitors
from rqjobs.database.analytics import events as events_table
from rqjobs.processors.analytics.events import QREvent
from rqjobs.processors.analytics.tally import Cell, Visit, VisitorKey, by_week, merge_visits, tally, visits

_LOCK = 0x72716A_7172  # "rqj", "qr"
_turn = threading.Lock()
_EVENT_COLUMNS = (*QREvent._fields, "recorded_at")
_VISITOR_COLUMNS = ("day", "scope", "visitor", "first", "again", "seen_on")
_KEEP_EVENT = "ON CONFLICT (event_id) DO NOTHING"
_KEEP_VISITOR = (
    "ON CONFLICT (day, visitor, scope) DO UPDATE SET "
    "first = excluded.first, again = excluded.again, seen_on = excluded.seen_on"
)
_COUNT_COLUMNS = ("scope", "metric", "day", "value", "total")
_ADD = f"ON CONFLICT (day, scope, metric, value) DO UPDATE SET total = {counts.name}.total + excluded.total"
_QUARTERS = {
    "sqlite": "quarters = json_set({0}, '$.{1}', coalesce({0} ->> '$.{1}', 0) + excluded.total)",
    # On a full day two and a half times as fast as {0} || jsonb_build_object(...).
    "postgresql": (
        "quarters = jsonb_set({0}, '{{{1}}}', to_jsonb(coalesce(({0} ->> '{1}')::bigint, 0) + excluded.total))"
    ),
}
_MOST_VARIABLES = 32_000  # SQLite takes 32,766 in a statement


def store(engine: Engine, events: Sequence[QREvent]) -> set[str]:
    """Stores and counts those of ``events`` that are new; all of them or, if it raises, none.

    One batch is stored at a time: a lock serialises the threads of a process, SQLite's single writer or PostgreSQL's
    advisory lock the processes. All batches update the same rows (today's counts), so they would wait for each other
    anyway; in turn they cannot deadlock.

    Returns:
        The ids of the new events.
    """
    by_id: dict[str, QREvent] = {}
    for event in events:
        by_id.setdefault(event.event_id, event)
    # The counts are computed before the lock is taken: most events are new, and the others are subtracted below.
    write = datetime.isoformat if engine.dialect.name == "postgresql" else _sqlite_time
    rows = [_event_row(event, write) for event in by_id.values()]
    cells, seen = tally(by_id.values()), visits(by_id.values())
    with _turn, engine.begin() as connection:
        if _is_postgres(connection):
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        last = connection.execute(select(func.coalesce(func.max(events_table.c.id), 0))).scalar_one()
        now = datetime.now(UTC)
        stamp = write(now)
        if _insert(connection, events_table, _EVENT_COLUMNS, [(*row, stamp) for row in rows], _KEEP_EVENT) < len(rows):
            fresh = set(connection.execute(select(events_table.c.event_id).where(events_table.c.id > last)).scalars())
            cells.subtract(tally(by_id.pop(event_id) for event_id in by_id.keys() - fresh))
            seen = visits(by_id.values())
        cells.update(_meet(connection, seen, now.date().isoformat()))
        _count(connection, {cell: number for cell, number in cells.items() if number})
    return set(by_id)


def _event_row(event: QREvent, write: Callable[[datetime], str]) -> tuple[Any, ...]:
    extra = None if event.extra is None else json.dumps(event.extra)
    return (*event[:5], write(event.occurred_at), *event[6:-1], extra)


def _sqlite_time(moment: datetime) -> str:
    """Returns the moment as SQLAlchemy's DateTime stores it on SQLite: in UTC, without an offset."""
    return moment.isoformat(" ", "microseconds")[:26]


def _meet(connection: Connection, new: dict[VisitorKey, Visit], today: str) -> Counter[Cell]:
    """Stores the visitors of the batch; returns the changes of the counts."""
    changed, cells = merge_visits(new, _known_visits(connection, list(new)))
    rows = [(*key, *visit, today) for key, visit in changed.items()]
    _insert(connection, visitors, _VISITOR_COLUMNS, rows, _KEEP_VISITOR)
    return cells


def _known_visits(connection: Connection, keys: list[VisitorKey]) -> dict[VisitorKey, Visit]:
    if _is_postgres(connection):
        given, day = "jsonb_array_elements(%s::jsonb)", "(k.value ->> 0)::date"
    else:
        given, day = "json_each(?)", "k.value ->> 0"
    statement = (
        f"SELECT v.day, v.scope, v.visitor, v.first, v.again FROM {given} AS k CROSS JOIN {visitors.name} AS v "  # noqa: S608  # constants
        f"WHERE v.day = {day} AND v.scope = k.value ->> 1 AND v.visitor = k.value ->> 2"
    )
    return {
        VisitorKey(str(day), scope, visitor): Visit(first, bool(again))
        for day, scope, visitor, first, again in connection.exec_driver_sql(statement, (json.dumps(keys),))
    }


def _count(connection: Connection, cells: Mapping[Cell, int]) -> None:
    weeks = [(*row, number) for row, number in by_week(cells).items()]
    _insert(connection, counts, _COUNT_COLUMNS, weeks, _ADD)
    by_quarter: defaultdict[int, list[tuple[Any, ...]]] = defaultdict(list)
    for cell, number in cells.items():
        quarter = cell[4]
        by_quarter[quarter].append((*cell[:4], number, f'{{"{quarter}": {number}}}'))
    for quarter, rows in by_quarter.items():
        add = _QUARTERS[connection.dialect.name].format(f"{counts.name}.quarters", quarter)
        _insert(connection, counts, (*_COUNT_COLUMNS, "quarters"), rows, f"{_ADD}, {add}")


def _insert(
    connection: Connection, table: Table, columns: Sequence[str], rows: Sequence[tuple[Any, ...]], conflict: str = ""
) -> int:
    """Inserts many rows in one statement: from JSON on PostgreSQL, with a variable for each value on SQLite.

    One statement lets other threads work while it runs; sqlite3's executemany takes the GIL at every row.

    Returns:
        The number of inserted rows.
    """
    into = f"INSERT INTO {table.name} ({', '.join(columns)})"
    if _is_postgres(connection):
        types = (table.c[name].type.compile(connection.dialect) for name in columns)
        values = ", ".join(f"(r ->> {index})::{type_}" for index, type_ in enumerate(types))
        statement = f"{into} SELECT {values} FROM jsonb_array_elements(%s::jsonb) AS r {conflict}"  # noqa: S608  # names of our own columns and types
        return connection.exec_driver_sql(statement, (json.dumps(rows),)).rowcount if rows else 0
    most = _MOST_VARIABLES // len(columns)
    row = f"({', '.join('?' * len(columns))})"
    written = 0
    for start in range(0, len(rows), most):
        chunk = rows[start : start + most]
        statement = f"{into} VALUES {', '.join([row] * len(chunk))} {conflict}"
        written += connection.exec_driver_sql(statement, tuple(chain.from_iterable(chunk))).rowcount
    return written


def _is_postgres(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"
