"""An endpoint that runs waiting jobs, called by a platform's cron; for hosts without long-running processes.

``wsgi`` and ``asgi`` are complete apps; mount one, or serve it by itself::

    gunicorn --timeout 120 rqjobs.integrations.burst:wsgi
    uvicorn rqjobs.integrations.burst:asgi

``POST /`` with ``Authorization: Bearer <RQJOBS_CRON_TOKEN>`` runs ``rqjobs worker --burst`` and returns the counts.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qs

import redis

from rqjobs.config.settings import get_settings
from rqjobs.errors import RQJobsError
from rqjobs.integrations.bridge import child_environment
from rqjobs.monitoring.queue_health import queue_health

LONGEST = 840.0
"""The most seconds of a burst: common platforms limit a request to 15 minutes or less."""
DEFAULT = 50.0
"""The seconds of a burst without ``?seconds=``: it ends before the next call of a cron that calls every minute."""

_running = threading.Lock()

Answer = tuple[int, dict[str, Any]]


def run_burst(seconds: float = DEFAULT) -> Answer:
    """Runs the waiting jobs in a child process; after ``seconds`` running jobs are released.

    Returns:
        An HTTP status and a document: 200 done, 409 another burst is running, 502 the worker failed, 503 Redis does not
        answer.
    """
    if not _running.acquire(blocking=False):
        return 409, {"error": "another burst is running"}
    try:
        before, started = _totals(), time.monotonic()
        command = [sys.executable, "-m", "rqjobs", "worker", "--burst", "--grace", "5"]
        worker = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=child_environment())  # noqa: S603
        cut = False
        try:
            code = worker.wait(seconds)
        except subprocess.TimeoutExpired:
            cut = True
            worker.terminate()
            code = worker.wait()
        done = {name: value - before[name] for name, value in _totals().items()}
    except (RQJobsError, redis.exceptions.RedisError):
        return 503, {"error": "Redis does not answer"}
    else:
        document = {**done, "seconds": round(time.monotonic() - started, 2), "more": cut}
        return (200, document) if code == 0 else (502, {"error": f"the worker ended with {code}", **document})
    finally:
        _running.release()


def wsgi(environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The endpoint as a WSGI app."""
    status, document = _answer(
        environ["REQUEST_METHOD"], environ.get("HTTP_AUTHORIZATION", ""), environ.get("QUERY_STRING", "")
    )
    body = json.dumps(document).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
    start_response(f"{status} {_PHRASES[status]}", headers)
    return [body]


async def asgi(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """The endpoint as an ASGI app; it does not block the event loop."""
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    headers = dict(scope["headers"])
    status, document = await asyncio.to_thread(
        _answer,
        scope["method"],
        headers.get(b"authorization", b"").decode("latin-1"),
        scope["query_string"].decode("latin-1"),
    )
    body = json.dumps(document).encode()
    fields = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*fields, (b"cache-control", b"no-store")]})
    await send({"type": "http.response.body", "body": body})


_PHRASES = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    405: "Method Not Allowed",
    409: "Conflict",
    502: "Bad Gateway",
    503: "Service Unavailable",
}


def _answer(method: str, authorization: str, query: str) -> Answer:
    token = get_settings().rqjobs_cron_token
    if token is None:
        return 503, {"error": "set RQJOBS_CRON_TOKEN"}
    wanted = f"Bearer {token.get_secret_value()}".encode()
    if not hmac.compare_digest(authorization.encode("latin-1", "replace"), wanted):
        return 401, {"error": "send Authorization: Bearer <RQJOBS_CRON_TOKEN>"}
    if method not in ("POST", "GET"):  # Vercel's cron sends GET
        return 405, {"error": "send POST"}
    given = parse_qs(query).get("seconds", [str(DEFAULT)])[0]
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 1 <= seconds <= LONGEST:
        return 400, {"error": f"seconds: {given} is not a number from 1 to {LONGEST:g}"}
    return run_burst(seconds)


def _totals() -> dict[str, int]:
    queues = queue_health()
    return {
        "completed": sum(queue.completed for queue in queues),
        "failed": sum(queue.failed_total for queue in queues),
    }
