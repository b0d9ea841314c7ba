"""The jobs that run in this process, in memory shared with the watcher process, which can read it if this process dies.

The memory is a list of places, each ``thread (8 bytes) | capacity in executions (4 bytes) | executions (32 bytes
each)``; each thread and each coroutine has one place. Starting a job writes 32 bytes. Nothing is written when a job
ends, because an execution with a written outcome is ignored.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import threading
from collections import defaultdict

HEAD = struct.Struct("<QI")
EXECUTION = 32
"""The length of an execution's id in characters (reserve.lua)."""

_SIZE = 16 * 2**20  # bytes; pages that were never written take no memory

_lock = threading.Lock()


class Place:
    """The part of the memory in which one thread or coroutine records the jobs that it runs."""

    __slots__ = ("_at", "_memory", "capacity")

    def __init__(self, memory: mmap.mmap | bytearray, at: int, capacity: int) -> None:
        self._memory = memory
        self._at = at
        self.capacity = capacity

    def begin(self, executions: str) -> None:
        """Records that these executions (their ids, joined) run here from now on."""
        raw = executions.encode()
        self._memory[self._at : self._at + len(raw)] = raw


class _Shared:
    """The memory, and its free places."""

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
    """Returns a place of this thread for ``capacity`` executions; an unshared one without a watcher or free memory."""
    memory = _shared.memory
    with _lock:
        if memory is None or _shared.end + HEAD.size + EXECUTION * capacity > _SIZE - HEAD.size:
            return Place(bytearray(EXECUTION * capacity), 0, capacity)
        if _shared.free[capacity]:
            found = _shared.free[capacity].pop()
        else:
            found = Place(memory, _shared.end + HEAD.size, capacity)
            _shared.end += HEAD.size + EXECUTION * capacity
        # Inside the lock, because a reader stops at the first place without a head.
        HEAD.pack_into(memory, found._at - HEAD.size, threading.get_native_id(), capacity)  # noqa: SLF001
    return found


def free_place(used: Place) -> None:
    """Makes the place available to other threads."""
    if used._memory is _shared.memory:  # noqa: SLF001
        with _lock:
            _shared.free[used.capacity].append(used)


def read_running(descriptor: int, thread: int = 0) -> list[str]:
    """Returns the executions that were begun last in each place.

    With ``thread`` it returns only those of that thread's places, if it has any.
    """
    found: dict[int, list[str]] = defaultdict(list)
    with mmap.mmap(descriptor, _SIZE, prot=mmap.PROT_READ) as memory:
        at = 0
        while True:
            owner, capacity = HEAD.unpack_from(memory, at)
            if not capacity:
                break
            at += HEAD.size
            for start in range(at, at + EXECUTION * capacity, EXECUTION):
                if (raw := memory[start : start + EXECUTION])[0]:
                    found[owner].append(raw.decode(errors="replace"))
            at += EXECUTION * capacity
    return found[thread] if thread in found else [one for executions in found.values() for one in executions]
