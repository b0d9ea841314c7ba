"""Real worker processes for the tests."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


@contextlib.contextmanager
def worker(*args: str, log: Path | None = None, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """``rqjobs worker ARGS`` in a process of its own, stopped at the end."""
    process = start_worker(*args, log=log, **env)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def start_worker(*args: str, log: Path | None = None, **env: str) -> subprocess.Popen[bytes]:
    """``rqjobs worker ARGS``, running until somebody ends it."""
    environment = {**os.environ, "RQJOBS_IMPORT": "tests.support.tasks", "PYTHONPATH": str(ROOT), **env}
    with (log or Path(os.devnull)).open("ab") as output:
        return subprocess.Popen([sys.executable, "-m", "rqjobs", "worker", *args], env=environment, stderr=output)


def wait_until(condition: Callable[[], object], timeout: float = 20.0, what: str = "") -> None:
    """Waits until ``condition()`` is true.

    Raises:
        TimeoutError: it is not, in time.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what or "the condition did not come true")
        time.sleep(0.01)
