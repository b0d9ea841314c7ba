"""Waiting for a job with its progress in sight."""

from __future__ import annotations

import shutil
import sys
import time
from datetime import timedelta
from typing import Any

import click

from rqjobs.broker.job_records import describe_progress
from rqjobs.broker.results import wait_for_result
from rqjobs.broker.rq_types import Job
from rqjobs.cli.output import tame
from rqjobs.errors import ResultTimeout

_LOOK = 0.5
"""Seconds between two looks at the job's progress."""
_BAR = 30
_CLEAR = "\r\033[K"


def wait_with_progress(job: Job, timeout: timedelta) -> Any:
    """As :func:`rqjobs.wait_for_result`; a terminal's stderr shows how far the job is, if it says so."""
    if not sys.stderr.isatty():
        return wait_for_result(job, timeout)
    deadline = time.monotonic() + timeout.total_seconds()
    try:
        while True:
            left = deadline - time.monotonic()
            try:
                return wait_for_result(job, timedelta(seconds=max(0.0, min(_LOOK, left))))
            except ResultTimeout:
                if left <= 0:
                    raise
            report = job.get_meta(refresh=True).get("progress")
            words = bar(report) + tame(describe_progress(report)) if isinstance(report, dict) else "waiting"
            room = shutil.get_terminal_size().columns - 1  # a line that is broken could not be overwritten
            click.echo(_CLEAR + words[:room], err=True, nl=False)
    finally:
        click.echo(_CLEAR, err=True, nl=False)


def bar(report: dict[str, Any]) -> str:
    """A bar for a report that says ``percent``; otherwise nothing."""
    percent = report.get("percent")
    if not isinstance(percent, int | float):
        return ""
    done = int(max(0, min(percent, 100)) * _BAR / 100)
    return f"[{'#' * done}{'-' * (_BAR - done)}] "
