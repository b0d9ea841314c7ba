"""What a processor gets of its run (Attempt), and how an ``admit`` function holds a job (Hold)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from rqjobs.errors import DependencyUnavailable, JobTimeout, PermanentFailure, RetryLater

JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
"""A job's id: RQ's own rule, and a length. Ids are parts of keys, file names, paths and HTTP headers."""

Report = Callable[[Mapping[str, object]], None]


def _ignore(_report: Mapping[str, object]) -> None:
    """Discards the progress of a run that no worker started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One run of one job, as its processor sees it. It names neither RQ nor Redis."""

    job_id: str
    """The job's id: stable over all attempts, so a good idempotency key."""
    queue: str
    """The named queue (a lane such as ``webhooks:high``) that the job came from."""
    number: int = 1
    """Which attempt this is, from 1."""
    of: int = 1
    """How many attempts the job has in all."""
    enqueued_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    """When the job was first enqueued, in UTC: the same for all attempts."""
    timeout: timedelta = timedelta(seconds=180)
    """The time limit of this run."""
    started: float = field(default_factory=time.monotonic)
    """``time.monotonic()`` at the start of this run."""
    report: Report = field(default=_ignore, repr=False, compare=False)
    """Stores progress, a mapping that JSON can carry, in the job's meta; while Redis is away it is left out."""

    @property
    def last(self) -> bool:
        """Whether the job is dead if this attempt fails."""
        return self.number >= self.of

    def ends_with(self, error: BaseException) -> bool:
        """Whether the job is dead if this run raises ``error``: the rule by which the worker decides it.

        A :class:`PermanentFailure` ends it at any attempt; a :class:`DependencyUnavailable`, and a :class:`RetryLater`
        that does not count, at none; any other error at the last one.
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
        """Raises JobTimeout once the time limit is over: for loops that have no deadline of their own."""
        if self.remaining <= 0:
            raise JobTimeout(self.timeout)


@dataclass(frozen=True, slots=True)
class Hold:
    """The value that a processor's ``admit`` returns for a job that must not run yet: it waits as a delayed job,
    holds no slot and uses up no attempt. The wait is counted by Redis' clock.
    """  # noqa: D205

    until: datetime
    """When the job may be tried, in UTC by this process' clock. Jobs held together keep their order through it."""
    reason: str
    """One line for the logs and the overview."""
