"""The worker's side of its watcher: signs of life, and signals, through a pipe (rqjobs/worker/watcher.py)."""

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

LEAST = 10
"""Seconds without a sign of life after which a worker counts as frozen at the earliest, however short its lease is."""


def frozen_after(lease: float) -> int:
    """Seconds without a sign of life after which a worker is frozen: before others may take its jobs, for to end it and
    to note its jobs takes some seconds, and its leases were renewed up to 5 s before.
    """  # noqa: D205
    return max(LEAST, int(lease * 0.6))


@contextlib.contextmanager
def watched(name: str, memory: int | None, lease: float, grace: float) -> Iterator[None]:
    """Has this process watched by another one, which ends it when it is frozen and takes over its jobs when it dies.

    Args:
        name: the worker's.
        memory: the descriptor of what runs (rqjobs.worker.running_jobs.share); closed here. None: it is not watched.
        lease: seconds that a dead worker's jobs stay its own.
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
