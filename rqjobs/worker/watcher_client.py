"""The worker's side of its watcher: sends heartbeats and signals through a pipe (rqjobs/worker/watcher.py)."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from rqjobs.worker import watcher

TAKEOVER = 3.0
"""The most seconds that a watcher needs to record the running jobs in Redis: it starts Python with rqjobs, which takes
half a second on an idle machine."""

LEAST = 3
"""The least number of seconds without a heartbeat after which a worker counts as frozen."""

LEASE_TOO_SHORT = 10
"""The same for a lease that expires before the watcher can record the running jobs, so that haste gains nothing."""


def frozen_after(lease: float) -> int:
    """Returns the ticks without a heartbeat after which a worker counts as frozen.

    They end before its lease, so that its running jobs can be recorded in time.
    """
    renewed = min(5.0, lease / 3) + 1  # rqjobs.worker.maintenance: the most by which it precedes the last heartbeat
    limit = int(min(lease * 0.6, lease - renewed - watcher.TICK - TAKEOVER))
    return limit if limit >= LEAST else LEASE_TOO_SHORT


@contextlib.contextmanager
def watched(name: str, memory: int | None, lease: float, grace: float) -> Iterator[None]:
    """Starts a watcher for this process, which ends it if it freezes, and rescues its jobs if it dies.

    Args:
        name: the worker's name.
        memory: the descriptor of the running jobs (rqjobs.worker.running_jobs.share); closed here. None for no watcher.
        lease: seconds for which a dead worker's jobs stay claimed.
        grace: seconds that it has to end after SIGTERM.
    """
    if memory is None:
        yield
        return
    theirs, ours = os.pipe()
    command = [sys.executable, "-I", "-S", str(Path(watcher.__file__)), str(theirs), str(memory), str(os.getpid())]
    process = subprocess.Popen(  # noqa: S603
        [*command, name, str(frozen_after(lease)), str(grace)],
        pass_fds=(theirs, memory),
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the worker
    )
    os.close(theirs)
    os.close(memory)
    os.set_blocking(ours, False)
    faulthandler.enable()  # the traceback of a frozen process, and of one that crashes
    over = threading.Event()
    thread = threading.Thread(target=_beat, args=(ours, over), name="rqjobs-beat", daemon=True)
    thread.start()
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.set_wakeup_fd(ours, warn_on_full_buffer=False) if in_main else -1
    ended = False
    try:
        yield
        ended = True
    finally:  # with an error it is dead: no goodbye
        if in_main:
            signal.set_wakeup_fd(before)
        over.set()
        thread.join()
        if ended:
            with contextlib.suppress(OSError):
                os.write(ours, bytes([watcher.GOODBYE]))
        os.close(ours)
        if ended:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)


def _beat(pipe: int, over: threading.Event) -> None:
    while True:
        with contextlib.suppress(OSError):  # full, or the watcher is gone
            os.write(pipe, bytes([watcher.BEAT]))
        if over.wait(watcher.TICK):
            return
