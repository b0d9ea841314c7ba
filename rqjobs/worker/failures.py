"""What the exception of a run means for its job: the one place that decides it, for every runner."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Any

from rqjobs.broker.connection import PASSING
from rqjobs.errors import DependencyUnavailable, PermanentFailure, RedisUnavailable, RetryLater
from rqjobs.policies import QueuePolicy

_OURS = "rqjobs.processors."


@dataclass(frozen=True, slots=True)
class Failure:
    """The meaning of an exception that a run has raised."""

    cause: BaseException | str
    """The exception; its traceback's text where it was raised in another process."""
    permanent: bool = False
    """No other attempt, however many are left."""
    wait: float | None = None
    """Seconds until the next attempt; None is the job's own wait."""
    counts: bool = True
    """Whether the run uses up an attempt."""
    unavailable: DependencyUnavailable | None = None
    """The dependency that is away: not the job's failure."""

    @property
    def error(self) -> str:
        """The text of its traceback."""
        return self.cause if isinstance(self.cause, str) else "".join(traceback.format_exception(self.cause))

    def to_json(self) -> dict[str, Any]:
        """Returns it for the way out of a child process."""
        away = self.unavailable
        return {
            "error": self.error,
            "permanent": self.permanent,
            "wait": self.wait,
            "counts": self.counts,
            "unavailable": (away.dependency, away.reason, away.scope) if away is not None else None,
        }

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Failure:
        """Reads what :meth:`to_json` has written."""
        away = None
        if raw["unavailable"] is not None:
            dependency, reason, scope = raw["unavailable"]
            away = DependencyUnavailable(dependency, reason, scope=scope)
        return cls(raw["error"], raw["permanent"], raw["wait"], raw["counts"], away)


def read_failure(error: BaseException, policy: QueuePolicy | None) -> Failure:
    """Returns what ``error``, raised by a run of a job of ``policy``'s queue, means.

    ``policy`` is None for a job of a queue that is not registered.
    """
    later = error if isinstance(error, RetryLater) else None
    return Failure(
        error,
        permanent=isinstance(error, PermanentFailure),
        wait=later.after.total_seconds() if later is not None else None,
        counts=later is None or later.counts,
        unavailable=outage_of(error, policy) if policy is not None else None,
    )


def outage_of(error: BaseException, policy: QueuePolicy) -> DependencyUnavailable | None:
    """Returns the outage that ``error`` means; None if it is the job's own failure.

    In a processor of rqjobs, a Redis that is away, full or a replica is that of REDIS_URL. In an app's own processor it
    may be another one.
    """
    if isinstance(error, DependencyUnavailable):
        return error
    if policy.processor.startswith(_OURS) and isinstance(error, (*PASSING, RedisUnavailable)):
        return DependencyUnavailable("Redis", f"{type(error).__name__}: {error}")
    return None
