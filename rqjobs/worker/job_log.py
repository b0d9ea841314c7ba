"""What the logs say of single jobs: each one while there are few, a sum a second while there are many."""

from __future__ import annotations

import logging
import time
import zlib
from base64 import b64decode

from rqjobs.broker.attempts import reason_of
from rqjobs.config.logs import event
from rqjobs.worker.claimed_job import ClaimedJob

MAX_LINES = 50
"""Lines a second; a line costs more than a small job."""


class JobLog:
    """Logs what became of jobs. Used by the engine's loop only."""

    def __init__(self) -> None:
        self._second = 0
        self._lines = 0
        self._not_logged: dict[str, int] = {}

    def settled(self, job: ClaimedJob) -> None:
        """Logs one outcome, or counts it."""
        outcome = job.outcome
        assert outcome is not None
        second = int(time.time())
        if second != self._second:
            if self._not_logged:
                event(logging.INFO, "and more jobs", seconds=second - self._second, **self._not_logged)
            self._second, self._lines, self._not_logged = second, 0, {}
        self._lines += 1
        if self._lines > MAX_LINES:
            self._not_logged[outcome.how] = self._not_logged.get(outcome.how, 0) + 1
            return
        took = outcome.ended - outcome.started
        if outcome.how == "done":
            event(logging.INFO, "job completed", id=job.job_id, queue=job.lane, attempt=job.number, seconds=took)
        elif outcome.how in ("retry", "dead", "stop"):
            retries = outcome.how == "retry"
            event(
                logging.WARNING if retries else logging.ERROR,
                "job failed",
                id=job.job_id,
                queue=job.lane,
                attempt=job.number,
                of=job.attempts,
                error=reason_of(zlib.decompress(b64decode(outcome.words[0])).decode()),  # type: ignore[arg-type]
                seconds=took,
                next=f"retry in {outcome.words[1]} s" if retries else "dead letter",
            )
        elif outcome.how == "back":
            event(logging.INFO, "job handed back", id=job.job_id, queue=job.lane)
