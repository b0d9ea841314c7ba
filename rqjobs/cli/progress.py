"""Waiting for a job with its progress in sight."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rq.job import Job

from rqjobs.errors import ResultTimeout
from rqjobs.results import wait_for_result

_LOOK = 0.5
"""Seconds between two looks at the job's progress."""


def wait_with_progress(job: Job, timeout: timedelta) -> Any:
    """As :func:`rqjobs.wait_for_result`; a terminal's stderr shows how far the job is, if it says so."""
    if not sys.stderr.isatty():
        return wait_for_result(job, timeout)
    deadline = time.monotonic() + timeout.total_seconds()
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("waiting", total=None)
        while True:
            left = deadline - time.monotonic()
            try:
                return wait_for_result(job, timedelta(seconds=max(0.0, min(_LOOK, left))))
            except ResultTimeout:
                if left <= 0:
                    raise
            report = job.get_meta(refresh=True).get("progress")
            if isinstance(report, dict):
                bar.update(task, description=describe(report), total=report.get("of"), completed=report.get("rows", 0))


def describe(report: dict[str, Any]) -> str:
    """A report of progress in words: ``500 of 1,200 rows, 41.7 %``; one of an unknown shape as it is."""
    rows, total = report.get("rows"), report.get("of")
    if not isinstance(rows, int):
        return ", ".join(f"{name} {value}" for name, value in report.items())
    if not isinstance(total, int):
        return f"{rows:,} rows"
    return f"{rows:,} of {total:,} rows, {report.get('percent', 0)} %"
