"""Calls exception handlers for our jobs; for jobs on the RQ compatibility path RQ's own methods call them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from rqjobs.broker.rq_schema import fetch_job
from rqjobs.errors import JobNotFound
from rqjobs.worker.rq_worker import StockWorker

ExceptionHandler = Callable[..., Any]
"""``handler(job, type, value, traceback)``; if it returns False, the handlers after it are not called."""

PATIENCE = 5.0
"""The most seconds that a worker waits for handlers when it ends."""


class HandlerThread:
    """Calls exception handlers one after the other, so that none can delay a job or change its outcome."""

    def __init__(self) -> None:
        self._failures: SimpleQueue[tuple[StockWorker, str, BaseException] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, failure: tuple[StockWorker, str, BaseException]) -> None:
        """Queues the failure of a run: the worker, the job's id, and the exception."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="rqjobs-handlers", daemon=True)
            self._thread.start()
        self._failures.put(failure)

    def close(self) -> None:
        """Waits for the handlers of all queued failures."""
        if self._thread is not None:
            self._failures.put(None)
            self._thread.join(PATIENCE)

    def _work(self) -> None:
        while (failure := self._failures.get()) is not None:
            worker, job_id, error = failure
            try:
                worker.handle_exception(fetch_job(job_id, worker.connection), type(error), error, error.__traceback__)
            except JobNotFound:
                pass  # the job was deleted, so there is none to pass to the handlers
            except Exception:
                logging.getLogger("rqjobs").exception("exception handlers could not be called")
            del failure, error  # they refer to the frames of the run
