"""What machines ask, ``/metrics``, ``/health`` and ``/ready``: the answers, and a worker's --health-port."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rqjobs.broker.connection import get_connection
from rqjobs.config.logs import event
from rqjobs.errors import RedisUnavailable, RQJobsError
from rqjobs.monitoring.prometheus import CONTENT_TYPE, render
from rqjobs.monitoring.queue_health import fullness, queue_health

Answer = tuple[int, str, bytes]
"""Status, content type, body."""


def metrics() -> Answer:
    """The metrics in Prometheus' text format."""
    return 200, CONTENT_TYPE, render(get_connection())


def health() -> Answer:
    """200 while the process serves, with the state of Redis and of every queue.

    For liveness probes: what needs a person is no reason to restart a process, so it is said in the body only.
    """
    queues = {queue.name: {"healthy": queue.healthy, "reasons": queue.reasons} for queue in queue_health()}
    full = fullness()
    healthy = full is None and all(queue["healthy"] for queue in queues.values())
    return _json(200, {"healthy": healthy, "redis": full, "queues": queues})


def ready() -> Answer:
    """200 once Redis answers. For readiness probes."""
    get_connection().ping()
    return _json(200, {"ready": True})


def _json(status: int, document: Any) -> Answer:
    return status, "application/json", json.dumps(document).encode() + b"\n"


def safely(answer: Callable[[], Answer]) -> Answer:
    """``answer()``, or 503 while Redis is away."""
    try:
        return answer()
    except RedisUnavailable:
        return _json(503, {"ready": False, "healthy": False, "reason": "Redis does not answer"})


def serve_probes(port: int, host: str = "127.0.0.1") -> ThreadingHTTPServer:
    """Serves the three in a thread of this process, without a login: they show numbers and names of queues only.

    Args:
        port: the port; 0 takes a free one.
        host: loopback by default. In a container, RQJOBS_HEALTH_HOST=0.0.0.0 lets its orchestrator in.

    Raises:
        RQJobsError: the port is taken.
    """
    answers: dict[str, Callable[[], Answer]] = {
        "/metrics": metrics,
        "/health": health,
        "/ready": ready,
    }

    class Handler(BaseHTTPRequestHandler):
        """Answers the three, and nothing else."""

        timeout = 10
        server_version = "rqjobs"
        sys_version = ""

        def do_GET(self) -> None:
            answer = answers.get(self.path.partition("?")[0])
            missing = _json(404, {"paths": list(answers)})
            status, content_type, body = safely(answer) if answer else missing
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: Any) -> None:
            """A probe every few seconds is no event."""

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise RQJobsError(f"port {port} of {host} cannot be used: {error.strerror}; choose another") from error
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="probes", daemon=True).start()
    event(logging.INFO, "probes served", address=f"http://{host}:{server.server_port}/health")
    return server
