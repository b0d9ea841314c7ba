"""Functions that RQ's own enqueueing names: RQJOBS_IMPORT=tests.support.plain lets our workers run them."""

from __future__ import annotations

import time

from rq import get_current_job
from rq.timeouts import JobTimeoutException

from rqjobs.broker.rq_schema import allow


@allow
def spin():
    """Python code without end; cleans up as a job for RQ does."""
    try:
        while True:
            time.sleep(0.01)
    except JobTimeoutException as error:
        get_current_job().connection.set("cleaned up", str(error))
        raise


@allow
def swallow():
    """Takes the time limit for an error of its own, and goes on."""
    while True:
        try:
            while True:
                time.sleep(0.01)
        except Exception:
            get_current_job().connection.incr("swallowed")


@allow
def sleep(seconds):
    """One call of C."""
    time.sleep(seconds)


@allow
def fail(text):
    """Raises."""
    raise ValueError(text)


@allow
def note_failure(job, connection, kind, error, traceback):
    """A failure callback, or an exception handler: notes what it is given."""
    connection.rpush("failures", f"{job.id} {kind.__name__} {issubclass(kind, JobTimeoutException)} {error}")


@allow
def handler(job, kind, error, traceback):
    """An exception handler."""
    text = str(error).strip().splitlines()[-1]
    job.connection.rpush("handled", f"{job.id} {kind.__name__} {issubclass(kind, JobTimeoutException)} {text}")


@allow
def last_handler(job, kind, error, traceback):
    """An exception handler that keeps those after it from being called."""
    job.connection.rpush("handled", f"{job.id} last")
    return False


@allow
def broken_handler(job, kind, error, traceback):
    """An exception handler that raises itself."""
    raise RuntimeError("the handler is broken")


@allow
def slow_callback(job, connection, *details):
    """A callback of one call of C."""
    time.sleep(100)
