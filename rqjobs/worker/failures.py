"""Translates the exception of a run to its meaning for the job; the only place that does so, for every runner."""

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
    """What an exception that a run has raised means for its job."""

    cause: BaseException | str
    """The exception; the text of its traceback if it was raised in another process."""
    permanent: bool = False
    """Whether the job is dead, even if it has attempts left."""
    wait: float | None = None
    """Seconds until the next attempt; None for the wait of the job's backoff."""
    counts: bool = True
    """Whether the run counts as an attempt."""
    unavailable: DependencyUnavailable | None = None
    """The unavailable dependency, if that is the cause instead of the job itself."""

    @property
    def error(self) -> str:
        """The text of the traceback."""
        return self.cause if isinstance(self.cause, str) else "".join(traceback.format_exception(self.cause))

    def to_json(self) -> dict[str, Any]:
        """Returns the failure as JSON types, to send it from a child process."""
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
        """Returns the failure that :meth:`to_json` has encoded."""
        away = None
        if raw["unavailable"] is not None:
            dependency, reason, scope = raw["unavailable"]
            away = DependencyUnavailable(dependency, reason, scope=scope)
        return cls(raw["error"], raw["permanent"], raw["wait"], raw["counts"], away)


def read_failure(error: BaseException, policy: QueuePolicy | None) -> Failure:
    """Returns the meaning of ``error``, raised by a run of a job of ``policy``'s queue.

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
    """Returns the outage that caused ``error``; None if the job itself has failed.

    In a processor of rqjobs, an error of Redis is an outage of REDIS_URL. In an app's own processor it may be another
    Redis, so there it is a failure of the job.
    """
    if isinstance(error, DependencyUnavailable):
        return error
    if policy.processor.startswith(_OURS) and isinstance(error, (*PASSING, RedisUnavailable)):
        return DependencyUnavailable("Redis", f"{type(error).__name__}: {error}")
    return None
