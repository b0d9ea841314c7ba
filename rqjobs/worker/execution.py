"""Runs the processor of a job in this thread, from its payload to the result; used by RQ's workers and by tests."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from rqjobs.attempt import Attempt
from rqjobs.broker.tracing import traced
from rqjobs.errors import DependencyUnavailable, InvalidJob, PermanentFailure, RetryLater, UnknownQueue
from rqjobs.jobs import JobModel
from rqjobs.policies import QueuePolicy, get_policy, load


def resolve(queue: str, payload: Mapping[str, Any]) -> tuple[QueuePolicy, JobModel]:
    """Returns the policy of ``queue`` and the job model of ``payload``.

    Raises:
        PermanentFailure: no processor is registered for the queue, or the payload is not a job of it.
    """
    try:
        policy = get_policy(queue)
        return policy, policy.job_type.parse(dict(payload))
    except (UnknownQueue, InvalidJob) as error:
        raise PermanentFailure(f"refused: {error}") from error


def run(policy: QueuePolicy, job: JobModel, attempt: Attempt) -> Any:
    """Runs the processor of ``policy`` and returns its result; a coroutine gets its own event loop.

    Raises:
        RetryLater, DependencyUnavailable: the queue's ``admit`` holds the job.
        Exception: any exception of the processor.
    """
    if policy.admit is not None:
        (hold,) = load(policy.admit)([(job, attempt)])
        if hold is not None:
            if isinstance(hold, DependencyUnavailable):
                raise hold
            wait = hold.until - datetime.now(UTC)
            raise RetryLater(max(wait, timedelta()), hold.reason, counts=False)
    result = traced(load(policy.processor))(job, attempt)
    if inspect.iscoroutine(result):
        return asyncio.run(result)
    return result
