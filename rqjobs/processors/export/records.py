"""The table ``rqjobs_exports``: one row for each published file, marked when the file is deleted."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, Insert, RowMapping, select, update
from sqlalchemy.dialects import postgresql, sqlite

from rqjobs.database import get_engine
from rqjobs.database.exports import exports
from rqjobs.database.schema import ensure_schema


@dataclass(frozen=True, kw_only=True)
class Export:
    """One published export."""

    id: str
    user_id: str
    data_type: str
    export_type: str
    filters: dict[str, Any]
    rows: int
    bytes: int
    location: str
    """The folder or fsspec URL in which the file was published."""
    file_name: str
    """The name of the file in ``location``."""
    created_at: datetime
    expires_at: datetime
    """The time at which the file is deleted."""
    deleted_at: datetime | None = None

    @property
    def download_name(self) -> str:
        """The file name that a browser suggests: ``bookings-2026-01-31.csv``."""
        return f"{self.data_type}-{self.created_at:%Y-%m-%d}.{self.file_name.rpartition('.')[2]}"

    @property
    def available(self) -> bool:
        """Whether the file can be downloaded now."""
        return self.deleted_at is None and datetime.now(UTC) < self.expires_at


def _replace(dialect: Any) -> Insert:
    inserted = dialect.insert(exports)
    replaced: Insert = inserted.on_conflict_do_update(index_elements=["id"], set_=dict(inserted.excluded))
    return replaced


_REPLACE = {"sqlite": _replace(sqlite), "postgresql": _replace(postgresql)}


def save(export: Export) -> None:
    """Writes ``export``; replaces an earlier one of the same job."""
    values = vars(export) | {
        "created_at": export.created_at.timestamp(),
        "expires_at": export.expires_at.timestamp(),
        "deleted_at": export.deleted_at.timestamp() if export.deleted_at else None,
    }
    with _engine().begin() as connection:
        connection.execute(_REPLACE[connection.dialect.name], values)


def find(export_id: str) -> Export | None:
    """Returns the export with this id, also if its file is deleted; None if there is none."""
    with _engine().connect() as connection:
        row = connection.execute(select(exports).where(exports.c.id == export_id)).mappings().first()
    return _export(row) if row is not None else None


def recent(*, user_id: str | None = None, limit: int = 50) -> list[Export]:
    """Returns the newest exports, of one user or of all users."""
    query = select(exports).order_by(exports.c.created_at.desc(), exports.c.id).limit(limit)
    if user_id is not None:
        query = query.where(exports.c.user_id == user_id)
    with _engine().connect() as connection:
        return [_export(row) for row in connection.execute(query).mappings()]


def expired() -> list[Export]:
    """Returns the exports whose file has expired and is not deleted yet."""
    query = select(exports).where(exports.c.deleted_at.is_(None), exports.c.expires_at <= time.time())
    with _engine().connect() as connection:
        return [_export(row) for row in connection.execute(query).mappings()]


def mark_deleted(export_id: str) -> None:
    """Marks the file as deleted; the row stays as a record of the export and its user."""
    with _engine().begin() as connection:
        connection.execute(update(exports).where(exports.c.id == export_id).values(deleted_at=time.time()))


def _engine() -> Engine:
    engine = get_engine()
    ensure_schema(engine)
    return engine


def _export(row: RowMapping) -> Export:
    values = dict(row)
    for name in ("created_at", "expires_at", "deleted_at"):
        if values[name] is not None:
            values[name] = datetime.fromtimestamp(values[name], UTC)
    return Export(**values)
