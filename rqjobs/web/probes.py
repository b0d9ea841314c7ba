"""``/metrics``, ``/health`` and ``/ready`` on the dashboard; machines sign in with HTTP Basic."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response

from rqjobs.monitoring import health_server

blueprint = Blueprint("probes", __name__)


def _respond(answer: Callable[[], health_server.Answer]) -> Response:
    status, content_type, body = health_server.safely(answer)
    return Response(body, status, content_type=content_type)


@blueprint.get("/metrics")
def metrics() -> Response:
    """For Prometheus, with HTTP Basic authentication."""
    return _respond(health_server.metrics)


@blueprint.get("/health")
def health() -> Response:
    """Whether the queues are healthy, with HTTP Basic authentication."""
    return _respond(health_server.health)


@blueprint.get("/ready")
def ready() -> Response:
    """Whether Redis answers, with HTTP Basic authentication."""
    return _respond(health_server.ready)
