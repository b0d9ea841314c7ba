"""Which files of rqjobs do work, when and in which thread: ``python -m tests.support.call_recorder FILE ARGS`` runs
``rqjobs ARGS`` and writes one line for each call of a function to FILE.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import rqjobs

_ROOT = str(Path(rqjobs.__file__).parent) + "/"


class Call(NamedTuple):
    """One call of a function of rqjobs."""

    at: float
    """The monotonic clock, which all processes of a machine share."""
    file: str
    """Relative to the root of the repository."""
    function: str
    thread: str


def _record(calls: list[Call], frame: FrameType, event: str, _argument: object) -> None:
    name = frame.f_code.co_filename
    if event == "call" and name.startswith(_ROOT) and frame.f_code.co_name != "<module>":
        file = f"rqjobs/{name.removeprefix(_ROOT)}"
        calls.append(Call(time.monotonic(), file, frame.f_code.co_name, threading.current_thread().name))


@contextmanager
def recorded_calls() -> Iterator[list[Call]]:
    """The calls of this thread while the block runs."""
    calls: list[Call] = []
    before = sys.gettrace()
    sys.settrace(lambda *words: _record(calls, *words))
    try:
        yield calls
    finally:
        sys.settrace(before)


def write_calls(calls: list[Call], path: str) -> None:
    """Writes one line for each call, for :func:`read_calls`."""
    Path(path).write_text("".join("\t".join(map(str, call)) + "\n" for call in list(calls)))


def read_calls(path: Path) -> list[Call]:
    """What a process that has ended has recorded."""
    lines = (line.split("\t") for line in path.read_text().splitlines())
    return [Call(float(at), file, function, thread) for at, file, function, thread in lines]


def main() -> None:
    """Runs rqjobs with all its threads recorded."""
    path, *words = sys.argv[1:]
    calls: list[Call] = []
    threading.settrace(lambda *event: _record(calls, *event))
    sys.settrace(lambda *event: _record(calls, *event))
    from rqjobs.cli import main as run

    try:
        run(words)
    finally:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
        write_calls(calls, path)


if __name__ == "__main__":
    main()
