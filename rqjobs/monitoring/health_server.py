"""The responses of ``/metrics``, ``/health`` and ``/ready``, and the server of a worker's --health-port."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from rqjobs.broker.connection import get_connection
from rqjobs.broker.unreadable import reading
from rqjobs.config.logs import event
from rqjobs.errors import RedisUnavailable
from rqjobs.monitoring.prometheus import CONTENT_TYPE, render
from rqjobs.monitoring.queue_health import fullness, queue_health

if TYPE_CHECKING:
    from rqjobs.monitoring.http_server import LimitedServer

Answer = tuple[int, str, bytes]
"""The status, the content type and the body of a response."""


def metrics() -> Answer:
    """Returns the metrics in Prometheus' text format."""
    return 200, CONTENT_TYPE, render(get_connection())


def health() -> Answer:
    """Returns 200 while the process serves, with the state of Redis and of every queue in the body.

    For liveness probes: an unhealthy queue is no reason to restart a process, so it does not change the status.
    """
    queues = {queue.name: {"healthy": queue.healthy, "reasons": queue.reasons} for queue in queue_health()}
    full = fullness()
    healthy = full is None and all(queue["healthy"] for queue in queues.values())
    return _json(200, {"healthy": healthy, "redis": full, "queues": queues})


def ready() -> Answer:
    """Returns 200 if Redis answers. For readiness probes."""
    get_connection().ping()
    return _json(200, {"ready": True})


def _json(status: int, document: Any) -> Answer:
    return status, "application/json", json.dumps(document).encode() + b"\n"


def safely(answer: Callable[[], Answer]) -> Answer:
    """Returns ``answer()``, or 503 if Redis does not answer."""
    try:
        with reading():
            return answer()
    except RedisUnavailable:
        return _json(503, {"ready": False, "healthy": False, "reason": "Redis does not answer"})


def serve_probes(port: int, host: str = "127.0.0.1") -> LimitedServer:
    """Serves the three paths in a thread of this process, without a login: they show only numbers and names of queues.

    Args:
        port: the port; 0 for any free one.
        host: loopback by default. In a container, RQJOBS_HEALTH_HOST=0.0.0.0 makes it reachable for the orchestrator.

    Raises:
        RQJobsError: the port is in use.
    """
    from rqjobs.monitoring.http_server import LimitedServer

    server = LimitedServer(_app, host, port, threads=2, connections=100)
    threading.Thread(target=server.serve_forever, name="probes", daemon=True).start()
    event(logging.INFO, "probes served", address=f"http://{host}:{server.server_port}/health")
    return server


_ANSWERS: dict[str, Callable[[], Answer]] = {"/metrics": metrics, "/health": health, "/ready": ready}


def _app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """The WSGI app of the three paths; any other path is a 404."""
    answer = _ANSWERS.get(environ["PATH_INFO"])
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        status, content_type, body = _json(405, {"methods": ["GET", "HEAD"]})
    else:
        status, content_type, body = safely(answer) if answer else _json(404, {"paths": list(_ANSWERS)})
    headers = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
    start_response(f"{status} {HTTPStatus(status).phrase}", headers)
    return [body]
