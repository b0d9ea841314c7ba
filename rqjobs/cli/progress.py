"""Waits for a job and shows its progress."""

from __future__ import annotations

import shutil
import sys
import time
from datetime import timedelta
from typing import Any

from rqjobs.broker.job_records import describe_progress
from rqjobs.broker.results import wait_for_result
from rqjobs.broker.rq_types import Job
from rqjobs.cli.output import say_over
from rqjobs.errors import ResultTimeout
from rqjobs.security.printable import printable

_LOOK = 0.5
"""Seconds between two updates of the job's progress."""
_BAR = 30


def wait_with_progress(job: Job, timeout: timedelta) -> Any:
    """Waits like :func:`rqjobs.wait_for_result`, and shows the job's progress on stderr if it is a terminal."""
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
            words = "waiting"
            if isinstance(report, dict):
                words = bar(report) + printable(describe_progress(report), keep="")
            room = shutil.get_terminal_size().columns - 1  # a line that wraps could not be replaced
            say_over(words[:room])
    finally:
        say_over("")


def bar(report: dict[str, Any]) -> str:
    """Returns a bar for a report with ``percent``; otherwise an empty text."""
    percent = report.get("percent")
    if not isinstance(percent, int | float):
        return ""
    done = int(max(0, min(percent, 100)) * _BAR / 100)
    return f"[{'#' * done}{'-' * (_BAR - done)}] "
