"""A trace goes on from the request that enqueues a job to the processor that runs it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import redis as redis_py
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from rqjobs import WebhookJob, enqueue
from rqjobs.attempt import Attempt
from rqjobs.broker import tracing
from rqjobs.broker.rq_schema import job_key
from rqjobs.broker.tracing import traced
from rqjobs.errors import RedisUnavailable


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """The process's provider for this test: with one set for good, the tests after it would be traced as well."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


def webhook() -> WebhookJob:
    return WebhookJob(webhook_id="w", event="a.b", url="https://a.example/", payload={})


def test_nothing_is_carried_outside_a_span(redis: redis_py.Redis, spans: InMemorySpanExporter) -> None:
    assert redis.hget(job_key(enqueue(webhook()).id), "meta") is None


@pytest.mark.parametrize("kind", ["function", "coroutine"])
def test_a_trace_continues_in_the_processor(redis: redis_py.Redis, spans: InMemorySpanExporter, kind: str) -> None:
    with trace.get_tracer("app").start_as_current_span("request") as request:
        job = enqueue(webhook())
    assert "traceparent" in json.loads(redis.hget(job_key(job.id), "meta") or b"{}")["trace"]

    def function(_job: Any, attempt: Attempt) -> str:
        return f"{trace.get_current_span().get_span_context().trace_id:x} {attempt.number}"

    async def coroutine(job: Any, attempt: Attempt) -> str:
        return function(job, attempt)

    attempt = Attempt(job_id=job.id, queue="webhooks", number=2)
    if kind == "function":
        seen = traced(function)(webhook(), attempt)
    else:
        seen = asyncio.run(traced(coroutine)(webhook(), attempt))
    assert seen == f"{request.get_span_context().trace_id:x} 2"
    ours = next(span for span in spans.get_finished_spans() if span.name == "process webhooks")
    assert ours.parent is not None
    assert ours.parent.span_id == request.get_span_context().span_id
    assert ours.attributes is not None
    assert ours.attributes["messaging.message.id"] == job.id


@pytest.mark.parametrize("kind", ["function", "coroutine"])
@pytest.mark.parametrize(
    "error", [redis_py.ConnectionError(), redis_py.TimeoutError(), RedisUnavailable("there", "no")]
)
def test_a_job_runs_in_a_new_trace_if_its_trace_cannot_be_read(
    spans: InMemorySpanExporter,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    error: Exception,
) -> None:
    def away() -> None:
        raise error

    async def coroutine(_job: Any, attempt: Attempt) -> str:
        return attempt.job_id

    monkeypatch.setattr(tracing, "get_connection", away)
    tracing._say_once.cache_clear()
    for job_id in ("a", "b"):
        attempt = Attempt(job_id=job_id, queue="webhooks", number=1)
        if kind == "function":
            assert traced(lambda _job, attempt: attempt.job_id)(webhook(), attempt) == job_id
        else:
            assert asyncio.run(traced(coroutine)(webhook(), attempt)) == job_id
    assert [span.parent for span in spans.get_finished_spans()] == [None, None]
    assert [record.getMessage() for record in caplog.records] == ["redis does not say which traces jobs belong to"]
