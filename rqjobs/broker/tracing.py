"""OpenTelemetry: the trace of an enqueue call continues in the job's processor. Without OpenTelemetry it costs nothing.

Set a tracer provider in the web process and in the worker (``opentelemetry-instrument rqjobs worker``, or a module
of RQJOBS_IMPORT); the extra is ``rqjobs[otel]``. Queues that run in batches (qr-analytics) are not traced.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any, cast

import redis

from rqjobs.attempt import Attempt
from rqjobs.broker.connection import get_connection
from rqjobs.broker.rq_schema import job_key
from rqjobs.config.logs import event
from rqjobs.errors import RedisUnavailable

FIELD = "trace"
"""The key in the job's meta for the W3C trace context: ``traceparent``, ``tracestate``."""


def context_to_carry() -> dict[str, str]:
    """Returns the context of the current span; empty without one."""
    if "opentelemetry" not in sys.modules:
        return {}
    from opentelemetry import propagate, trace

    carrier: dict[str, str] = {}
    if trace.get_current_span().get_span_context().is_valid:
        propagate.inject(carrier)
    return carrier


def traced(processor: Callable[..., Any]) -> Callable[..., Any]:
    """Returns ``processor`` wrapped in a span, a child of the span that enqueued the job; unchanged without tracing."""
    if "opentelemetry" not in sys.modules:
        return processor
    from opentelemetry import trace

    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return processor
    if inspect.iscoroutinefunction(processor):

        @wraps(processor)
        async def run_async(job: Any, attempt: Attempt) -> Any:
            carried = await asyncio.to_thread(_carried, attempt.job_id)  # off the event loop
            with _span(attempt, carried):
                return await processor(job, attempt)

        return run_async

    @wraps(processor)
    def run(job: Any, attempt: Attempt) -> Any:
        with _span(attempt, _carried(attempt.job_id)):
            return processor(job, attempt)

    return run


@contextmanager
def _span(attempt: Attempt, carried: Mapping[str, str]) -> Iterator[None]:
    from opentelemetry import propagate, trace

    attributes: dict[str, str | int] = {
        "messaging.system": "rq",
        "messaging.operation.type": "process",
        "messaging.destination.name": attempt.queue,
        "messaging.message.id": attempt.job_id,
        "rqjobs.attempt": attempt.number,
    }
    with trace.get_tracer("rqjobs").start_as_current_span(
        f"process {attempt.queue}",
        context=propagate.extract(carried),
        kind=trace.SpanKind.CONSUMER,
        attributes=attributes,
    ):
        yield


def _carried(job_id: str) -> dict[str, str]:
    """Returns the context in the job's meta; empty without one. An unreadable one must not fail the job."""
    try:
        raw = cast("bytes | None", get_connection().hget(job_key(job_id), "meta"))
        carried = json.loads(raw or b"{}").get(FIELD, {})
        return {str(name): str(value) for name, value in carried.items()}
    except (redis.RedisError, RedisUnavailable, OSError) as error:
        _say_once(type(error).__name__)
        return {}
    except (ValueError, AttributeError):
        return {}


@cache
def _say_once(error: str) -> None:
    event(logging.WARNING, "redis does not say which traces jobs belong to", error=error)
