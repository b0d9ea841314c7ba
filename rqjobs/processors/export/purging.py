"""Deleting what is due: files past their time, and what killed runs have left behind."""

from __future__ import annotations

import contextlib
import logging
import time
from datetime import timedelta

from rqjobs.logs import event
from rqjobs.processors.export import records
from rqjobs.processors.export.records import Export
from rqjobs.processors.export.storage import get_storage, remove_workspace_files

_LEFT_BEHIND = timedelta(days=1)
"""A half-written file that nobody has touched for so long will not be resumed."""


def purge(*, dry_run: bool = False) -> list[Export]:
    """Deletes the files of expired exports, and half-written ones that were given up; answers the deleted exports.

    Every export does this at its end, and ``rqjobs exports purge`` by hand. A file that cannot be deleted (its store,
    an earlier EXPORT_URL, is away) is named in the log and stays due: it must not fail the export of today.

    Args:
        dry_run: only answer what would be deleted.
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
    for path in storage.workspace.glob(".*.part"):
        with contextlib.suppress(FileNotFoundError):  # it was published meanwhile
            if path.stat().st_mtime < abandoned:
                remove_workspace_files(storage, path.name[1:].removesuffix(".part"))
    return deleted
