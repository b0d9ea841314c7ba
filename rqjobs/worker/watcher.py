"""The process beside each worker: ``python watcher.py PIPE MEMORY PID NAME AFTER GRACE``. Imports nothing of rqjobs.

It ends a worker whose interpreter is frozen: a job that holds Python's global lock, such as a regular expression that
never ends, stops every thread, also the one that enforces time limits. The worker writes one byte a second to a pipe.
The watcher counts its own ticks without such a byte instead of seconds: while the machine or the container is
suspended, this process is too, so no tick passes. A worker that is stopped (SIGSTOP, a debugger) does not count as
frozen. The pipe is also Python's wakeup descriptor, so that the watcher receives the numbers of signals even if the
worker is frozen, and can enforce its grace period. If a worker is frozen, or ends without a goodbye byte, this process
continues as ``rqjobs.worker.takeover``.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from pathlib import Path

BEAT, GOODBYE = 0xFF, 0xFE
"""The bytes for a heartbeat and for a regular end; neither is the number of a signal."""

TICK = 1.0
"""Seconds of one tick."""

MORE = 3
"""Ticks after the grace period before a worker that does not stop is ended."""


def watch(pipe: int, pid: int, after: int, grace: float) -> tuple[str, int] | None:
    """Watches the worker, which is the parent of this process.

    Returns:
        None after its goodbye byte; ``frozen`` with the thread that holds the interpreter (0 if unknown), or ``died``.
    """
    silent, limit = 0, after
    times: dict[int, int] = {}
    thread = 0
    while os.getppid() == pid:
        if select.select([pipe], [], [], TICK)[0]:
            said = os.read(pipe, 4096)
            if not said:
                break
            if GOODBYE in said:
                return None
            stops = sum(number in (signal.SIGTERM, signal.SIGINT) for number in said)
            if stops:
                limit = min(limit, MORE + int(grace) if limit == after and stops == 1 else MORE)
            if BEAT in said:
                silent = 0
            continue
        silent += 1
        times, thread = busiest(pid, times)
        if silent >= max(limit, 2):
            if not is_stopped(pid):
                return "frozen", thread
            silent = 0
    return "died", 0


def is_stopped(pid: int) -> bool:
    """Returns whether a signal or a debugger has stopped the process."""
    try:
        return stat(Path(f"/proc/{pid}/stat"))[0] in "Tt"
    except OSError:  # no /proc: macOS
        import subprocess  # not needed on Linux, where this process stays small

        words = ["/bin/ps", "-o", "stat=", "-p", str(pid)]
        shown = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603  # a number, no shell
        return shown.stdout.strip().startswith("T")


def busiest(pid: int, before: dict[int, int]) -> tuple[dict[int, int], int]:
    """Returns the CPU time of each thread, and the only thread that has used some since ``before``.

    That thread is 0 if there is none, or several.
    """
    now = {}
    with contextlib.suppress(OSError):
        for folder in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                fields = stat(folder / "stat")
                now[int(folder.name)] = int(fields[11]) + int(fields[12])
    used = sorted((now[thread] - before.get(thread, now[thread]), thread) for thread in now)
    alone = used and used[-1][0] >= 5 and sum(time for time, _ in used[:-1]) * 4 < used[-1][0]  # noqa: PLR2004  # 50 ms
    return now, used[-1][1] if alone else 0


def stat(path: Path) -> list[str]:
    """Returns the fields of a ``stat`` file in Linux' /proc, from the state on."""
    return path.read_text().rpartition(")")[2].split()


def main() -> None:
    """Watches until the worker ends."""
    pipe, memory, pid, name, after, grace = sys.argv[1:]
    for number in (
        signal.SIGTERM,
        signal.SIGINT,
    ):  # ignored: systemd sends them to all processes of a unit, but the watcher must end after its worker
        signal.signal(number, signal.SIG_IGN)
    found = watch(int(pipe), int(pid), int(after), float(grace))
    if found is None:
        return
    how, thread = found
    os.set_inheritable(int(memory), True)
    os.execv(sys.executable, [sys.executable, "-m", "rqjobs.worker.takeover", how, pid, name, memory, str(thread)])  # noqa: S606


if __name__ == "__main__":
    main()
