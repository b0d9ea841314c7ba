"""The attempt that a processor receives (Attempt), and the hold that an ``admit`` function returns (Hold)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from rqjobs.errors import DependencyUnavailable, JobTimeout, PermanentFailure, RetryLater

JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
"""A job's id: RQ's rule with a maximal length. Ids are parts of keys, file names, paths and HTTP headers."""

Report = Callable[[Mapping[str, object]], None]


def _ignore(_report: Mapping[str, object]) -> None:
    """Discards the progress of a run without a worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One run of one job, for its processor. It contains no types of RQ or Redis."""

    job_id: str
    """The job's id: the same in all attempts, so it can be an idempotency key."""
    queue: str
    """The lane of the job, such as ``webhooks:high``."""
    number: int = 1
    """The number of this attempt, from 1."""
    of: int = 1
    """The most attempts that the job may have."""
    enqueued_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    """The time at which the job was first enqueued, in UTC: the same in all attempts."""
    timeout: timedelta = timedelta(seconds=180)
    """The time limit of this run."""
    started: float = field(default_factory=time.monotonic)
    """``time.monotonic()`` at the start of this run."""
    report: Report = field(default=_ignore, repr=False, compare=False)
    """Stores progress (a mapping of JSON types) in the job's meta; does nothing while Redis does not answer."""

    @property
    def last(self) -> bool:
        """Whether the job is dead if this attempt fails."""
        return self.number >= self.of

    def ends_with(self, error: BaseException) -> bool:
        """Returns whether the job is dead if this run raises ``error``, by the same rule as the worker.

        A :class:`PermanentFailure` makes it dead at any attempt; a :class:`DependencyUnavailable`, and a
        :class:`RetryLater` that does not count, at none; any other error at the last one.
        """
        if isinstance(error, PermanentFailure):
            return True
        if isinstance(error, DependencyUnavailable) or (isinstance(error, RetryLater) and not error.counts):
            return False
        return self.last

    @property
    def remaining(self) -> float:
        """Seconds left until the time limit, never below zero."""
        return max(0.0, self.started + self.timeout.total_seconds() - time.monotonic())

    def check(self) -> None:
        """Raises JobTimeout when the time limit is over; for loops without a deadline of their own."""
        if self.remaining <= 0:
            raise JobTimeout(self.timeout)


@dataclass(frozen=True, slots=True)
class Hold:
    """The return value of a processor's ``admit`` for a job that must not run yet.

    The job is delayed, uses no slot, and has no attempt counted. The wait is measured by Redis' clock.
    """

    until: datetime
    """The time at which the job may run, in UTC by this process's clock. Jobs held together run in this order."""
    reason: str
    """One line for logs and pages."""
