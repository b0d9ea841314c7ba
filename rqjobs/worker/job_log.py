"""The log lines of single jobs: a line for each at a low rate, a summary per second at a high rate."""

from __future__ import annotations

import logging
import time

from rqjobs.broker.attempts import reason_of
from rqjobs.config.logs import event
from rqjobs.worker.claimed_job import ClaimedJob
from rqjobs.worker.outcomes import Dead, Done, Released, Retry

MAX_LINES = 50
"""The most lines per second: a line costs more CPU time than a small job."""


class JobLog:
    """Logs the outcomes of jobs. For the loop's thread only."""

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
            self._not_logged[outcome.name] = self._not_logged.get(outcome.name, 0) + 1
            return
        took = outcome.ended - outcome.started
        if isinstance(outcome, Done):
            event(logging.INFO, "job completed", id=job.job_id, queue=job.lane, attempt=job.number, seconds=took)
        elif isinstance(outcome, Retry | Dead):
            retry = outcome if isinstance(outcome, Retry) else None
            event(
                logging.WARNING if retry is not None else logging.ERROR,
                "job failed",
                id=job.job_id,
                queue=job.lane,
                attempt=job.number,
                of=job.attempts,
                error=reason_of(outcome.error),
                seconds=took,
                next=f"retry in {retry.wait} s" if retry is not None else "dead letter",
            )
        elif isinstance(outcome, Released):
            event(logging.INFO, "job released", id=job.job_id, queue=job.lane)
