"""Which errors of a run are not the job's fault, besides those that its processor calls so."""

from __future__ import annotations

from rqjobs.broker.connection import PASSING
from rqjobs.errors import DependencyUnavailable, RedisUnavailable
from rqjobs.policies import QueuePolicy

_OURS = "rqjobs.processors."


def outage_of(error: BaseException, policy: QueuePolicy) -> DependencyUnavailable | None:
    """The outage that ``error`` means; None if it is the job's own failure.

    In a processor of rqjobs a Redis that is away, full or a replica is REDIS_URL's. In an app's own it may be another.
    """
    if isinstance(error, DependencyUnavailable):
        return error
    if policy.processor.startswith(_OURS) and isinstance(error, (*PASSING, RedisUnavailable)):
        return DependencyUnavailable("Redis", f"{type(error).__name__}: {error}")
    return None
