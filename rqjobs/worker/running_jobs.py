"""The jobs that run in this process, in memory shared with the watcher process, which can read it if this process dies.

A job is recorded before any of its code is called: its payload's validation, ``admit``, its function. The memory is a
list of places, each ``thread (8 bytes) | capacity (4 bytes) | entries (256 bytes each)``; each thread and each
coroutine has one place. An entry is ``+execution lane function id``, with ``?`` while the job is only checked (its
payload, ``admit``), and ``-`` once it has ended: its outcome may not be in Redis yet.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rqjobs.worker.claimed_job import ClaimedJob

HEAD = struct.Struct("<QI")
ENTRY = 256
"""Bytes of an entry; longer ones are cut."""

CHECKED, ENDED = b"?"[0], b"-"[0]

_SIZE = 16 * 2**20  # bytes; pages that were never written take no memory

_lock = threading.Lock()


@dataclass(frozen=True)
class RunningJob:
    """A job that had begun in a process that is now frozen or dead."""

    thread: int
    """The system's id of the thread that began it."""
    execution: str
    """The id of its claim."""
    lane: str
    function: str
    """``module:function`` of its queue's processor."""
    job_id: str
    running: bool
    """Whether it still ran or was checked; if not, its outcome may not be written."""
    checked: bool = False
    """Whether it was only checked, and had not begun."""

    @property
    def label(self) -> str:
        """The id, lane and function, for logs."""
        return f"{self.job_id} ({self.lane}, {self.function})"


class Place:
    """The part of the memory in which one thread or coroutine records the jobs that it runs."""

    __slots__ = ("_at", "_memory", "_used", "capacity")

    def __init__(self, memory: mmap.mmap | bytearray, at: int, capacity: int) -> None:
        self._memory = memory
        self._at = at
        self._used = 0
        self.capacity = capacity

    def begin(self, jobs: Sequence[ClaimedJob], mark: str = "+") -> None:
        """Records that these jobs run here from now on, or with ``?`` are checked, one after the other or together."""
        at = self._at
        for job in jobs:
            raw = f"{mark}{job.execution} {job.lane} {job.policy.processor} {job.job_id}\n".encode()[:ENTRY]
            self._memory[at : at + len(raw)] = raw
            at += ENTRY
        if len(jobs) != self._used:
            self._forget(len(jobs))

    def end(self) -> None:
        """Records that the jobs here have ended."""
        self._memory[self._at] = ENDED
        if self._used > 1:
            for at in range(self._at + ENTRY, self._at + self._used * ENTRY, ENTRY):
                self._memory[at] = ENDED

    def clear(self) -> None:
        """Records that no job runs here any more, because the jobs continue elsewhere."""
        self._forget(0)

    def _forget(self, count: int) -> None:
        for at in range(self._at + count * ENTRY, self._at + self._used * ENTRY, ENTRY):
            self._memory[at] = 0
        self._used = count


class _Shared:
    """The shared memory, and its free places."""

    def __init__(self) -> None:
        self.memory: mmap.mmap | None = None
        self.end = 0
        self.free: defaultdict[int, list[Place]] = defaultdict(list)


_shared = _Shared()


def share() -> int:
    """Makes the shared memory and returns its descriptor, for the watcher. Places made before are not in it."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("rqjobs-running")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, _SIZE)
    with _lock:
        _shared.__init__()  # type: ignore[misc]
        _shared.memory = mmap.mmap(descriptor, _SIZE)
    return descriptor


def place(capacity: int = 1) -> Place:
    """Returns a place of this thread for ``capacity`` jobs; an unshared one without a watcher or free memory."""
    memory = _shared.memory
    with _lock:
        if memory is None or _shared.end + HEAD.size + ENTRY * capacity > _SIZE - HEAD.size:
            return Place(bytearray(ENTRY * capacity), 0, capacity)
        if _shared.free[capacity]:
            found = _shared.free[capacity].pop()
        else:
            found = Place(memory, _shared.end + HEAD.size, capacity)
            _shared.end += HEAD.size + ENTRY * capacity
        # Inside the lock, because a reader stops at the first place without a head.
        HEAD.pack_into(memory, found._at - HEAD.size, threading.get_native_id(), capacity)  # noqa: SLF001
    return found


def free_place(used: Place) -> None:
    """Makes the place available to other threads."""
    if used._memory is _shared.memory:  # noqa: SLF001
        with _lock:
            _shared.free[used.capacity].append(used)


def read_running(descriptor: int) -> list[RunningJob]:
    """Returns the jobs that were begun last in each place, unless the place was cleared."""
    found: list[RunningJob] = []
    with mmap.mmap(descriptor, _SIZE, prot=mmap.PROT_READ) as memory:
        at = 0
        while True:
            thread, capacity = HEAD.unpack_from(memory, at)
            if not capacity:
                return found
            at += HEAD.size
            for start in range(at, at + ENTRY * capacity, ENTRY):
                if (raw := memory[start : start + ENTRY])[0]:
                    text = raw[1:].partition(b"\n")[0].decode(errors="replace")
                    execution, lane, function, job_id = [*text.split(" ", 3), "", "", ""][:4]
                    running, checked = raw[0] != ENDED, raw[0] == CHECKED
                    found.append(RunningJob(thread, execution, lane, function, job_id, running, checked))
            at += ENTRY * capacity
