"""A process that runs the jobs of one queue: ``python -m rqjobs.worker.runners.child_process FD QUEUE``."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from datetime import datetime, timedelta
from queue import SimpleQueue
from typing import Any

from rqjobs.attempt import Attempt
from rqjobs.broker.tracing import traced
from rqjobs.config.logs import set_up_logs
from rqjobs.errors import PermanentFailure
from rqjobs.policies import QueuePolicy, get_policy, import_registrations, load
from rqjobs.worker.claimed_job import UNSERIALIZABLE
from rqjobs.worker.failures import read_failure

GROWTH = 64 * 1024
"""KiB by which the process may grow before it is replaced, which returns its memory to the system."""


def main(descriptor: int, queue: str) -> None:
    """Runs the jobs that arrive on the socket, until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(10)  # a job that uses a core for minutes must not slow down the others
    set_up_logs()
    connection = socket.socket(fileno=descriptor)
    lines: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(connection, lines), daemon=True).start()
    import_registrations()
    policy = get_policy(queue)
    processor = traced(load(policy.processor))
    base = _peak()
    _send(connection, {"ready": True})
    while True:
        message = json.loads(lines.get())
        answer = _run(policy, processor, message, connection)
        answer["keep"] = _peak() < base + GROWTH
        _send(connection, answer)


def _listen(connection: socket.socket, lines: SimpleQueue[bytes]) -> None:
    """Ends the process when the worker has died, because another worker will run its job."""
    # If the worker was killed before it read all our messages, the connection is reset instead of closed.
    with contextlib.suppress(OSError), connection.makefile("rb") as stream:
        for line in stream:
            lines.put(line)
    os._exit(0)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _send(connection: socket.socket, message: Mapping[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def _run(policy: QueuePolicy, processor: Any, message: dict[str, Any], connection: socket.socket) -> dict[str, Any]:
    def report(progress: Mapping[str, object]) -> None:
        _send(connection, {"report": dict(progress)})

    attempt = Attempt(
        job_id=message["job_id"],
        queue=message["lane"],
        number=message["number"],
        of=message["of"],
        enqueued_at=datetime.fromisoformat(message["enqueued_at"]),
        timeout=timedelta(seconds=message["timeout"]),
        report=report,
    )
    try:
        signal.signal(signal.SIGTERM, _stop)
        result = processor(policy.job_type.parse(message["payload"]), attempt)
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
    except BaseException as error:  # noqa: BLE001  # any exception of a processor is its failure
        return {"failure": read_failure(error, policy).to_json()}
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        json.dumps(result)
    except (TypeError, ValueError, RecursionError):
        result = UNSERIALIZABLE
    return {"result": result}


def _stop(_number: int, _frame: object) -> None:
    """Handles ``stop-job``: raises an exception, so that the job can clean up as after any failure."""
    raise PermanentFailure("stopped by command")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
