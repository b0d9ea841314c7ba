"""A job with a schedule, as an app's author would write it, and one that takes its time."""

from __future__ import annotations

import os
import time
from pathlib import Path

import rqjobs
from rqjobs.attempt import Attempt


@rqjobs.job(queue="note-tick", attempts=20, backoff="fixed:1s")
def note_tick(payload: dict, attempt: Attempt) -> str:
    """Appends its id to a file, in one write."""
    with Path(payload["file"]).open("a") as file:
        file.write(attempt.job_id + "\n")
    time.sleep(payload.get("seconds", 0))
    return "noted"


if cron := os.environ.get("TEST_CRON"):

    @rqjobs.job(queue="declared", cron=cron, timezone="Europe/Berlin", payload={"a": 1}, schedule={"overlap": "skip"})
    def declared(payload: dict) -> None:
        """Declared beside its function."""
