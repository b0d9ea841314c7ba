"""The health of endpoints, recorded with each batch of deliveries, in the same transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects import postgresql, sqlite

from rqjobs.database.webhook_tables import endpoints


@dataclass(frozen=True, slots=True)
class Health:
    """The successes and failures of one endpoint in a batch of deliveries."""

    key: str
    url: str
    succeeded: bool
    first_ms: int
    last_ms: int
    gone: bool


def record_health(connection: Connection, seen: Sequence[Health], disable_after: timedelta) -> list[str]:
    """Records since when endpoints have been failing, and disables those that are gone or have failed for too long.

    Returns:
        The names of the endpoints that this call has disabled.
    """
    by_key = {item.key: item for item in seen}
    columns = (endpoints.c.name, endpoints.c.enabled, endpoints.c.failing_since_ms)
    keys = list(by_key)
    rows = connection.execute(
        select(*columns)
        .where(endpoints.c.name.in_(keys))  # a job with only a URL does not change a registered endpoint
        .order_by(endpoints.c.name)  # the same order in every worker: no deadlocks
    ).all()
    disabled = []
    for row in rows:
        item = by_key.pop(row.name)
        if not row.enabled:
            continue
        change = _change(item, row.failing_since_ms, disable_after)
        if change:
            connection.execute(update(endpoints).where(endpoints.c.name == row.name).values(change))
        if change.get("enabled") is False:
            disabled.append(row.name)
    for item in sorted(by_key.values(), key=lambda item: item.key):
        if not item.succeeded:
            disabled += _make_known(connection, item, disable_after)
    return disabled


def _change(item: Health, failing_since: int | None, disable_after: timedelta) -> dict[str, Any]:
    if item.gone:
        return _disabled("it answered 410: gone for good", item.last_ms)
    if item.succeeded:
        return {} if failing_since is None else {"failing_since_ms": None}
    if failing_since is None:
        return {"failing_since_ms": item.first_ms}
    if item.last_ms - failing_since >= disable_after.total_seconds() * 1000:
        since = datetime.fromtimestamp(failing_since / 1000, UTC)
        return _disabled(f"every delivery has failed since {since:%Y-%m-%d %H:%M} UTC", item.last_ms)
    return {}


def _disabled(reason: str, at_ms: int) -> dict[str, Any]:
    return {"enabled": False, "reason": reason, "disabled_ms": at_ms}


def _make_known(connection: Connection, item: Health, disable_after: timedelta) -> list[str]:
    values = {
        "name": item.key,
        "url": item.url,
        "url_key": item.key,
        "events": [],
        "enabled": True,
        "failing_since_ms": item.first_ms,
        "created_ms": item.first_ms,
    } | _change(item, None, disable_after)
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    connection.execute(dialect.insert(endpoints).values(values).on_conflict_do_nothing())
    return [] if values["enabled"] else [item.key]
