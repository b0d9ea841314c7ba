"""The relay moves committed jobs from ``rqjobs_outbox`` to Redis, each row exactly once.

A row is written to Redis together with its token, in one atomic step, and then deleted. If the relay is killed between
the two steps, the next relay finds the token and only deletes the row.
"""

from __future__ import annotations

import json
import logging
import time
from datetime import datetime
from typing import Any

import redis
from sqlalchemy import Engine, Label, delete, literal_column, select
from sqlalchemy.exc import SQLAlchemyError

from rqjobs.batches.head import ROW_LANE, write_row
from rqjobs.broker import keys
from rqjobs.broker.clock_skew import MOST, skew
from rqjobs.broker.connection import client_of
from rqjobs.broker.job_writer import ROW_AGAIN, ROW_DELAY, Entry, Kind, redis_timestamp, write_now
from rqjobs.config.logs import event
from rqjobs.database import get_engine
from rqjobs.database.outbox import database_time, outbox
from rqjobs.database.schema import ensure_schema
from rqjobs.errors import RQJobsError

FAULTS = (RQJobsError, SQLAlchemyError, redis.exceptions.RedisError)
"""The errors that :func:`relay` raises if it cannot read the outbox, or not move all rows."""

_BATCH = 200
_KEEP_TOKENS = 30 * 24 * 3600.0  # seconds; a token stays only if the relay was killed between its last two steps


def relay(connection: redis.Redis | None = None, engine: Engine | None = None) -> int:
    """Moves all rows of the outbox to Redis; returns their number.

    Concurrent relays wait for each other (SQLite) or share the rows (PostgreSQL).

    Raises:
        SchemaMismatch: the database has no outbox; the message names the fix.
        DatabaseUnavailable: the database does not answer.
        RedisUnavailable: Redis does not answer; the rows stay.
    """
    client = client_of(connection)
    database = engine or get_engine()
    ensure_schema(database)
    moved = 0
    while batch := _relay_batch(client, database):
        moved += batch
        if batch < _BATCH:
            break
    return moved


def _relay_batch(client: redis.Redis, engine: Engine) -> int:
    with engine.connect().execution_options(sqlite_read=True) as looking:
        if looking.execute(select(outbox.c.token).limit(1)).first() is None:
            return 0  # usually it is empty, and then no write lock is taken
    with engine.begin() as transaction:
        now: Label[float] = literal_column(database_time(engine.dialect.name)).label("now")
        rows = transaction.execute(
            select(outbox, now).order_by(outbox.c.token).limit(_BATCH).with_for_update(skip_locked=True)
        ).all()
        tokens = [row.token for row in rows]
        if rows:
            behind = skew(client)
            refused = []
            for row in rows:
                if row.lane == ROW_LANE:  # written twice it changes nothing
                    refused += write_row(row.job_id, row.fields, client)
            refused += write_now([_entry(row, behind) for row in rows if row.lane != ROW_LANE], client)
            if refused:
                event(logging.WARNING, "already enqueued, or cancelled", ids=",".join(refused))
            transaction.execute(delete(outbox).where(outbox.c.token.in_(tokens)))
    if tokens:
        with client.pipeline(transaction=False) as pipeline:
            pipeline.zrem(keys.OUTBOX, *tokens)
            pipeline.zremrangebyscore(keys.OUTBOX, 0, time.time() - _KEEP_TOKENS)
            pipeline.execute()
    return len(rows)


def _entry(row: Any, behind: float) -> Entry:
    fields = json.loads(row.fields)
    data, created_at, description = (fields.pop(name) for name in ("data", "created_at", "description"))
    delay: float | None = fields.pop(ROW_DELAY, None)
    if delay is not None:  # counted from the writing of the row, so that a late relay does not delay the job further
        delay = max(0.0, delay - max(0.0, row.now - row.created_at))
    elif row.due is None and abs(row.now - datetime.fromisoformat(created_at).timestamp()) > MOST:
        fields["enqueued_at"] = redis_timestamp(behind)  # the relay is late, or the app's clock is wrong
    again = fields.pop(ROW_AGAIN, None)
    kind = Kind(row.lane, bool(row.only_once), fields)
    entry = Entry(kind, row.job_id, delay, data.encode(), created_at, description, row.token, at=row.due)
    if again is None:
        return entry
    # Its token differs, because the script has seen that of the refused entry.
    other = entry._replace(job_id=again["job_id"], data=again["data"].encode(), token=f"{row.token}-again")
    return entry._replace(again=other)
