"""Waiting for a job with its progress in sight."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import Any

import click
from rq.job import Job

from rqjobs.cli.output import tame
from rqjobs.errors import ResultTimeout
from rqjobs.results import wait_for_result

_LOOK = 0.5
"""Seconds between two looks at the job's progress."""


def wait_with_progress(job: Job, timeout: timedelta) -> Any:
    """As :func:`rqjobs.wait_for_result`; a terminal's stderr shows how far the job is, if it says so."""
    if not sys.stderr.isatty():
        return wait_for_result(job, timeout)
    deadline = time.monotonic() + timeout.total_seconds()
    shown = ""
    try:
        while True:
            left = deadline - time.monotonic()
            try:
                return wait_for_result(job, timedelta(seconds=max(0.0, min(_LOOK, left))))
            except ResultTimeout:
                if left <= 0:
                    raise
            report = job.get_meta(refresh=True).get("progress")
            words = tame(describe(report)) if isinstance(report, dict) else "waiting"
            click.echo(f"\r{words:<{len(shown)}}", err=True, nl=False)
            shown = words
    finally:
        click.echo(f"\r{'':<{len(shown)}}\r", err=True, nl=False)


def describe(report: dict[str, Any]) -> str:
    """A report of progress in words: ``500 of 1,200 rows, 41.7 %``; one of an unknown shape as it is."""
    rows, total = report.get("rows"), report.get("of")
    if not isinstance(rows, int):
        return ", ".join(f"{name} {value}" for name, value in report.items())
    if not isinstance(total, int):
        return f"{rows:,} rows"
    return f"{rows:,} of {total:,} rows, {report.get('percent', 0)} %"
