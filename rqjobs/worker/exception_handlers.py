"""Exception handlers for jobs of ours: RQ's own methods call them for the jobs that they run themselves."""

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
"""``handler(job, type, value, traceback)``; False keeps the handlers after it from being called."""

PATIENCE = 5.0
"""Seconds that the worker's end waits for handlers."""


class HandlerThread:
    """Calls exception handlers one after the other, so that none can hold up a job or change its outcome."""

    def __init__(self) -> None:
        self._failures: SimpleQueue[tuple[StockWorker, str, BaseException] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, failure: tuple[StockWorker, str, BaseException]) -> None:
        """A worker's run of the job of this id has raised this."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="rqjobs-handlers", daemon=True)
            self._thread.start()
        self._failures.put(failure)

    def close(self) -> None:
        """Waits for the handlers of what has failed."""
        if self._thread is not None:
            self._failures.put(None)
            self._thread.join(PATIENCE)

    def _work(self) -> None:
        while (failure := self._failures.get()) is not None:
            worker, job_id, error = failure
            try:
                worker.handle_exception(fetch_job(job_id, worker.connection), type(error), error, error.__traceback__)
            except JobNotFound:
                pass  # deleted meanwhile: there is nothing to give to a handler
            except Exception:
                logging.getLogger("rqjobs").exception("exception handlers could not be called")
            del failure, error  # with the frames of the run
