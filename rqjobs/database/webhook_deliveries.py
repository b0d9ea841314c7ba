"""The delivery log: every attempt to deliver a webhook, with its outcome."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Engine, Select, delete, func, select

from rqjobs.database.schema import ensure_schema
from rqjobs.database.webhook_health import Health, record_health
from rqjobs.database.webhook_tables import WENT_WRONG, deliveries, endpoint_key

RESPONSE_KEPT = 1000
"""The most characters of a response that are kept."""
LOOKED_THROUGH = 100_000
"""The number of newest attempts that a search without an index reads: by event, or by outcome ``done``."""
_PURGED_AT_ONCE = 5000


class Delivery(NamedTuple):
    """One attempt; a row of the log."""

    job_id: str
    endpoint: str
    event: str
    attempt: int
    at_ms: int
    duration_ms: float
    status: int | None
    outcome: str
    """``done``, ``retry`` or ``dead``."""
    error: str | None
    response: str | None
    job: str | None
    """The job as JSON, with its first attempt."""

    @property
    def at(self) -> datetime:
        """The start of the attempt, in UTC."""
        return datetime.fromtimestamp(self.at_ms / 1000, UTC)


_COLUMNS = [deliveries.c[name] for name in Delivery._fields]


def write(engine: Engine, rows: Sequence[Delivery], health: Sequence[Health], disable_after: timedelta) -> list[str]:
    """Appends ``rows`` and updates the health of their endpoints, in one transaction.

    Returns:
        The endpoints that this call has disabled.
    """
    ensure_schema(engine)
    place = "?" if engine.dialect.name == "sqlite" else "%s"
    insert = (  # column by column, without SQLAlchemy's work for each row: a third of the time
        f"INSERT INTO {deliveries.name} ({', '.join(Delivery._fields)}) "  # noqa: S608  # constants
        f"VALUES ({', '.join([place] * len(Delivery._fields))})"
    )
    with engine.begin() as connection:
        if rows:
            connection.exec_driver_sql(insert, list(rows))
        return record_health(connection, health, disable_after) if health else []


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Selects deliveries; a field with None is ignored."""

    endpoint: str | None = None
    event: str | None = None
    job_id: str | None = None
    outcome: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def scans(self) -> bool:
        """Whether the query cannot use an index."""
        return self.job_id is None and (self.event is not None or self.outcome == "done")

    def apply(self, query: Select[Any]) -> Select[Any]:
        """Returns ``query`` with the conditions of this filter."""
        columns = deliveries.c
        if self.endpoint is not None:
            query = query.where(columns.endpoint == endpoint_key(self.endpoint))
        for name in ("event", "job_id", "outcome"):
            if (value := getattr(self, name)) is not None:
                query = query.where(columns[name] == value)
        if self.outcome not in (None, "done"):
            query = query.where(WENT_WRONG)
        if self.since is not None:
            query = query.where(columns.at_ms >= int(self.since.timestamp() * 1000))
        if self.until is not None:
            query = query.where(columns.at_ms < int(self.until.timestamp() * 1000))
        return query


_NEWEST = (deliveries.c.at_ms.desc(), deliveries.c.id.desc())


def find(engine: Engine, wanted: Filter, limit: int, *, skip: int = 0) -> list[Delivery]:
    """Returns the newest ``limit`` attempts, newest first, after the first ``skip``.

    For an event, or the outcome ``done``, only the newest 100,000 attempts are searched.
    """
    ensure_schema(engine)
    query = wanted.apply(select(*_COLUMNS)).order_by(*_NEWEST).limit(limit).offset(skip)
    if wanted.scans:
        indexed = replace(wanted, event=None, outcome=None).apply(select(deliveries.c.at_ms)).order_by(*_NEWEST)
        oldest = indexed.limit(1).offset(LOOKED_THROUGH - 1).scalar_subquery()
        query = query.where(deliveries.c.at_ms >= func.coalesce(oldest, 0))
    with engine.connect().execution_options(sqlite_read=True) as connection:
        return [Delivery(*row) for row in connection.execute(query)]


def latest(engine: Engine, job_ids: Sequence[str]) -> list[Delivery]:
    """Returns the newest attempt of each of these deliveries, in the order of ``job_ids``."""
    query = select(*_COLUMNS).where(deliveries.c.job_id.in_(job_ids)).order_by(deliveries.c.at_ms, deliveries.c.id)
    with engine.connect().execution_options(sqlite_read=True) as connection:
        found = {row.job_id: Delivery(*row) for row in connection.execute(query)}  # the last one of each
    return [found[job_id] for job_id in job_ids if job_id in found]


def outcomes(engine: Engine, wanted: Filter, limit: int) -> dict[str, int]:
    """Returns the number of attempts by outcome, among the newest ``limit`` ones."""
    ensure_schema(engine)
    newest = wanted.apply(select(deliveries.c.outcome)).order_by(*_NEWEST).limit(limit).subquery()
    query = select(newest.c.outcome, func.count()).group_by(newest.c.outcome)
    with engine.connect().execution_options(sqlite_read=True) as connection:
        return {outcome: count for outcome, count in connection.execute(query)}  # noqa: C416  # rows, typed


def replayable(
    engine: Engine, wanted: Filter, *, delivered_too: bool = False
) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Yields the id and the job of each delivery with an attempt that ``wanted`` selects, oldest first.

    A job is None if its first attempt is no longer in the log.

    Args:
        engine: the database.
        wanted: selects the attempts.
        delivered_too: include deliveries that succeeded in the end.
    """
    ensure_schema(engine)
    found = wanted.apply(select(deliveries.c.job_id, func.min(deliveries.c.id).label("first")))
    if not delivered_too:
        other = deliveries.alias()
        arrived = select(other.c.id).where(other.c.job_id == deliveries.c.job_id, other.c.outcome == "done")
        found = found.where(~arrived.exists())
    meant = found.group_by(deliveries.c.job_id).subquery()
    job = (
        select(deliveries.c.job)
        .where(deliveries.c.job_id == meant.c.job_id, deliveries.c.job.is_not(None))
        .order_by(deliveries.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    query = select(meant.c.job_id, job).order_by(meant.c.first)
    with engine.connect().execution_options(sqlite_read=True) as connection:
        for job_id, text in connection.execute(query):
            yield job_id, None if text is None else json.loads(text)


def purge(engine: Engine, before: datetime) -> int:
    """Deletes rows older than ``before``, in small transactions; returns their number."""
    cutoff, total = int(before.timestamp() * 1000), 0
    old = select(deliveries.c.id).where(deliveries.c.at_ms < cutoff).limit(_PURGED_AT_ONCE)
    while True:
        with engine.begin() as connection:
            count = connection.execute(delete(deliveries).where(deliveries.c.id.in_(old))).rowcount
        total += count
        if count < _PURGED_AT_ONCE:
            return total
