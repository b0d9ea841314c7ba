"""Deletes raw events and visitors after ANALYTICS_RETENTION; the counts, which identify no person, are kept."""

from __future__ import annotations

import logging
import time
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import Engine, delete, select, tuple_
from sqlalchemy.exc import DBAPIError

from rqjobs.config import logs
from rqjobs.config.settings import get_settings
from rqjobs.database.analytics import events, visitors

_CHUNK = 5_000  # rows per transaction: other writers wait for tens of milliseconds at most
_PAUSE = 3600.0  # seconds between two checks in one worker process

_next_look = 0.0


def purge(engine: Engine, older_than: timedelta, *, limit: int | None = None) -> int:
    """Deletes the raw events and visitors recorded longer ago than ``older_than``, in short transactions.

    The time of recording decides, not the event's own time: so an event's id is kept for the whole retention, and
    duplicates are recognised even when old events are imported.

    Args:
        engine: the database.
        older_than: the age.
        limit: stop after about this many rows; None for all.

    Returns:
        The number of deleted rows of raw events and visitors.
    """
    cutoff = datetime.now(UTC) - older_than
    deleted = 0
    while limit is None or deleted < limit:
        with engine.begin() as connection:
            # Rows are recorded in the order of their ids, so the oldest are the first of the primary key.
            oldest = connection.execute(select(events.c.id, events.c.recorded_at).order_by(events.c.id).limit(_CHUNK))
            old = [row.id for row in oldest if row.recorded_at.replace(tzinfo=UTC) < cutoff]
            if old:
                connection.execute(delete(events).where(events.c.id <= old[-1]))
        deleted += len(old)
        if len(old) < _CHUNK:
            break
    return deleted + _purge_visitors(engine, cutoff.date(), None if limit is None else limit - deleted)


def _purge_visitors(engine: Engine, before: date, limit: int | None) -> int:
    is_old = (visitors.c.day < before) & (visitors.c.seen_on < before)
    key = tuple_(*visitors.primary_key)
    # Visitors of old days that were recorded recently stay.
    rest, deleted = is_old, 0
    while limit is None or deleted < limit:
        with engine.begin() as connection:
            last = connection.execute(
                select(*visitors.primary_key).where(rest).order_by(*visitors.primary_key).offset(_CHUNK - 1).limit(1)
            ).first()
            chunk = rest if last is None else rest & (key <= tuple_(*last))
            deleted += connection.execute(delete(visitors).where(chunk)).rowcount
        if last is None:
            break
        rest = is_old & (key > tuple_(*last))
    return deleted


def purge_now_and_then(engine: Engine) -> None:
    """Runs a part of :func:`purge`, at most once an hour in each worker process while nothing old is left."""
    global _next_look  # noqa: PLW0603
    if time.monotonic() < _next_look:
        return
    try:
        deleted = purge(engine, get_settings().analytics_retention, limit=_CHUNK)
    except DBAPIError as error:  # the events are stored; a failed cleanup must not fail their jobs
        logs.event(logging.WARNING, "old analytics events not deleted", error=str(error.orig))
        deleted = 0
    if deleted < _CHUNK:
        _next_look = time.monotonic() + _PAUSE
    if deleted:
        logs.event(logging.INFO, "old analytics events deleted", rows=deleted)
