"""Deletes the files of expired exports, and the partial files of killed runs."""

from __future__ import annotations

import contextlib
import logging
import time
from datetime import timedelta
from itertools import chain

from sqlalchemy.exc import SQLAlchemyError

from rqjobs.config.logs import event
from rqjobs.processors.export import records
from rqjobs.processors.export.records import Export
from rqjobs.processors.export.storage import WORKSPACE_ENDS, get_storage

_LEFT_BEHIND = timedelta(days=1)
"""The age after which a partial file is not resumed but deleted."""

_PAUSE = 60.0
"""Seconds between two checks for expired files in one worker process."""

_next_look = 0.0


def purge(*, dry_run: bool = False) -> list[Export]:
    """Deletes the files of expired exports, and old partial files; returns the exports whose files were deleted.

    A file that cannot be deleted (its store does not answer) is logged and tried again at the next call.

    Args:
        dry_run: return the exports without deleting anything.
    """
    due = records.expired()
    if dry_run:
        return due
    deleted = []
    for export in due:
        try:
            get_storage(export.location).delete(export.file_name)
        except Exception as error:  # noqa: BLE001  # each store has errors of its own
            event(logging.WARNING, "export not deleted", id=export.id, location=export.location, error=str(error))
            continue
        records.mark_deleted(export.id)
        deleted.append(export)
        event(logging.INFO, "export deleted", id=export.id, rows=export.rows)
    storage = get_storage()
    abandoned = time.time() - _LEFT_BEHIND.total_seconds()
    for path in chain.from_iterable(storage.workspace.glob(f".*.{end}") for end in WORKSPACE_ENDS):
        with contextlib.suppress(FileNotFoundError):  # another run has published it
            if path.stat().st_mtime < abandoned:
                path.unlink()
    return deleted


def purge_now_and_then() -> None:
    """Calls :func:`purge`, but at most once a minute in each worker process; called at the end of each export."""
    global _next_look  # noqa: PLW0603
    if time.monotonic() < _next_look:
        return
    _next_look = time.monotonic() + _PAUSE
    try:
        purge()
    except (SQLAlchemyError, OSError) as error:  # the export is published; a failed cleanup must not fail its job
        event(logging.WARNING, "expired exports not deleted", error=str(error).partition("\n")[0])
