"""The processor of ``data-export``: reads the rows, writes a partial file, publishes and records it, mails the link."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from datetime import UTC, datetime
from typing import Any

from rqjobs.attempt import Attempt
from rqjobs.config.logs import event
from rqjobs.config.settings import get_settings
from rqjobs.database import get_engine
from rqjobs.database.outages import database_outages
from rqjobs.database.schema import ensure_schema
from rqjobs.enqueueing import enqueue_email
from rqjobs.errors import DuplicateJob, PermanentFailure
from rqjobs.jobs import DataExportJob, EmailJob
from rqjobs.processors.export import formats, records
from rqjobs.processors.export.links import make_link
from rqjobs.processors.export.partial import PartialFile
from rqjobs.processors.export.purging import purge_now_and_then
from rqjobs.processors.export.reading import Rows, open_rows
from rqjobs.processors.export.records import Export
from rqjobs.processors.export.storage import get_storage, name_of_file, storing
from rqjobs.processors.export.writer import Heading
from rqjobs.sources import Source, UnknownSource, describe, get_source

_REPORT_EVERY = 0.5
"""The least number of seconds between two reports of progress."""


def export(job: DataExportJob, attempt: Attempt) -> dict[str, Any]:
    """Writes the user's rows to a file and publishes it; the processor of ``data-export``.

    A run that is killed leaves nothing under the final name. CSV and NDJSON resume where the last run stopped; the
    other formats start over.

    Returns:
        export_id, file_name, data_type, rows, bytes, url, url_expires_at (when the link expires) and expires_at (when
        the file is deleted); moments in ISO 8601.

    Raises:
        PermanentFailure: the source, a filter, the table or a column does not exist.
        RetryLater: another process is still writing the same export.
        DependencyUnavailable: the database does not answer, or the export store does not, or it is full.
    """
    try:
        source = get_source(job.data_type)
    except UnknownSource as error:
        raise PermanentFailure(str(error)) from None
    filters, faults = source.parse_filters(job.filters)
    if faults:
        raise PermanentFailure("; ".join(faults))
    settings = get_settings()
    storage = get_storage()
    with database_outages():
        ensure_schema(get_engine())  # first, so that a missing table does not fail the job after the work
    started = datetime.now(UTC)
    with _outages(source), open_rows(source, job.user_id, filters) as rows:
        heading = Heading(
            columns=rows.columns,
            title=job.data_type.replace("_", " ").capitalize(),
            filters=describe(filters),
            created_at=started,
        )
        file_name = name_of_file(job.data_type, attempt.job_id, formats.suffix(job.export_type))
        content = hashlib.sha256(repr((job.dump(), heading.columns)).encode()).hexdigest()
        with PartialFile(storage, file_name, content, resumable=rows.ordered) as partial:
            count = _write(job, attempt, rows, heading, partial)
            with storing():
                size = partial.publish()
    done = Export(
        id=attempt.job_id,
        user_id=job.user_id,
        data_type=job.data_type,
        export_type=job.export_type,
        filters=job.filters,
        rows=count,
        bytes=size,
        location=settings.export_url if "://" in settings.export_url else str(storage.workspace),
        file_name=file_name,
        created_at=started,
        expires_at=started + settings.export_keep,
    )
    with database_outages():
        records.save(done)
    url, until = make_link(done)
    result = {
        "export_id": done.id,
        "file_name": done.download_name,
        "data_type": done.data_type,
        "rows": count,
        "bytes": size,
        "url": url,
        "url_expires_at": until.isoformat(timespec="seconds"),
        "expires_at": done.expires_at.isoformat(timespec="seconds"),
    }
    if job.notify is not None:
        _notify(job.notify, attempt, result)
    event(logging.INFO, "export published", id=done.id, rows=count, bytes=size)
    purge_now_and_then()
    return result


def _outages(source: Source) -> contextlib.AbstractContextManager[None]:
    """Translates outages of our database; for a source that is a function of the app, errors pass unchanged."""
    return contextlib.nullcontext() if source.table is None else database_outages()


def _write(job: DataExportJob, attempt: Attempt, rows: Rows, heading: Heading, partial: PartialFile) -> int:
    """Writes the rows that the partial file lacks; returns the number of rows in the file."""
    with storing():
        writer = formats.open_writer(job.export_type, partial, heading)
    count = partial.rows
    report = _Progress(attempt, rows.total)
    try:
        with contextlib.closing(rows.batches(partial.key)) as batches:
            for batch, key in batches:
                attempt.check()
                os.sched_yield()  # lets threads with short jobs run now: the kernel would switch later
                with storing():
                    writer.write(batch)
                    os.sched_yield()
                    count += len(batch)
                    partial.checkpoint(count, key)
                report(count)
        with storing():
            writer.close()
    except BaseException:
        with contextlib.suppress(OSError):  # a full disk
            writer.abandon()
        raise
    report(count, last=True)
    return count


class _Progress:
    """Reports the rows done, their total and the percentage, at most every ``_REPORT_EVERY`` seconds."""

    def __init__(self, attempt: Attempt, total: int | None) -> None:
        self._attempt = attempt
        self._total = total
        self._next = 0.0

    def __call__(self, count: int, *, last: bool = False) -> None:
        now = time.monotonic()
        if now < self._next and not last:
            return
        self._next = now + _REPORT_EVERY
        report: dict[str, object] = {"rows": count}
        if last or self._total is not None:
            total = count if last else max(self._total or 0, count)
            report |= {"of": total, "percent": round(100 * count / total, 1) if total else 100.0}
        self._attempt.report(report)


def _notify(address: str, attempt: Attempt, result: dict[str, Any]) -> None:
    """Enqueues the mail with the link, one per job: a retry that publishes again does not send another."""
    content = f"{attempt.job_id} {attempt.enqueued_at.timestamp()}".encode()
    mail = EmailJob(
        to=address,
        subject=f"Your export is ready: {result['file_name']}",
        template="export-ready",
        data={name: result[name] for name in ("file_name", "rows", "url", "data_type")}
        | {"expires_at": result["url_expires_at"]},
    )
    with contextlib.suppress(DuplicateJob):
        enqueue_email(mail, job_id=f"export-{hashlib.sha256(content).hexdigest()[:32]}", unique=True)
