"""``/metrics``, ``/health`` and ``/ready`` on the dashboard; machines log in with HTTP Basic."""

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
    """Returns the metrics for Prometheus, with HTTP Basic authentication."""
    return _respond(health_server.metrics)


@blueprint.get("/health")
def health() -> Response:
    """Returns the health of the queues, with HTTP Basic authentication."""
    return _respond(health_server.health)


@blueprint.get("/ready")
def ready() -> Response:
    """Returns whether Redis answers, with HTTP Basic authentication."""
    return _respond(health_server.ready)
