"""Deleting what is due: files past their time, and what killed runs have left behind."""

from __future__ import annotations

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
    """Deletes the files of expired exports, and half-written ones that were given up; answers the expired.

    Every export does this at its end, and ``rqjobs exports purge`` by hand.

    Args:
        dry_run: only answer what would be deleted.
    """
    due = records.expired()
    if dry_run:
        return due
    for export in due:
        get_storage(export.location).delete(export.file_name)
        records.mark_deleted(export.id)
        event(logging.INFO, "export deleted", id=export.id, rows=export.rows)
    storage = get_storage()
    now = time.time()
    for path in storage.workspace.glob(".*.part"):
        if now - path.stat().st_mtime > _LEFT_BEHIND.total_seconds():
            remove_workspace_files(storage, path.name[1:].removesuffix(".part"))
    return due
