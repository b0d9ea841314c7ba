"""What was acknowledged and what was done, written outside of Redis, and the counts that come of it."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

OWN_FAULT = ("hook404", "dead", "poison")
"""Kinds of marks whose jobs are planned to die: a 404, a permanent failure, a job that harms its worker."""

SLACK = 4.0
"""Seconds around a kill, a stop or a cut within which the end of a run may be unknown: it may run again."""


LOSSY = "a failover that loses what it acknowledges"
"""The name of windows in which jobs may be lost, as the documents state."""


class Effect(NamedTuple):
    """One effect of one job."""

    mark: str
    at: float
    """Unix time."""
    pid: int
    """The process that ran the job; 0 where the effect arrived elsewhere and this is not known."""


class Window(NamedTuple):
    """A time in which runs may end unknown, and the process concerned; 0 for any."""

    start: float
    end: float
    pid: int
    why: str


def append(path: Path | str, line: str) -> None:
    """Adds one line in one write, so that lines of several processes never mix."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


def lines(path: Path) -> list[list[str]]:
    """The lines of a file by words; a line that is still being written is not there yet."""
    return [line.split() for line in path.read_text().rpartition("\n")[0].splitlines()] if path.exists() else []


def kind_of(mark: str) -> str:
    """``hook`` of ``hook.12``."""
    return mark.partition(".")[0]


@dataclass
class Counts:
    """The end of one run."""

    name: str
    acknowledged: int = 0
    refused: int = 0
    done: int = 0
    waiting: int = 0
    own: int = 0
    """Dead by their own, planned fault."""
    held: int = 0
    """Mails whose outcome is unknown and which wait for a person (EMAIL_UNKNOWN_OUTCOME=hold)."""
    dead: int = 0
    stated: int = 0
    """Lost in a window in which the documents state that."""
    lost: int = 0
    doubled: int = 0
    excused: int = 0
    """Done twice within a window."""
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    """More of this run: processes killed, how long the drain took."""
    faults: list[str] = field(default_factory=list)
    """What must not be, with ids and reasons."""

    def line(self) -> str:
        """The counts in one line."""
        return (
            f"chaos {self.name}: {self.acknowledged:,} acknowledged ({self.refused:,} refused), {self.done:,} done, "
            f"{self.waiting} waiting, {self.own} dead by their own fault, {self.held} held, {self.dead} dead, "
            f"{self.stated} lost as stated, {self.lost} lost, "
            f"{self.doubled} doubled, {self.excused} doubled inside windows; "
            f"{self.seconds:.0f} s; {', '.join(self.notes)}"
        )


class Ledger:
    """The files of one run in ``folder``, and the effects that the doubles saw."""

    def __init__(self, folder: Path) -> None:
        self.acknowledged_file = folder / "acknowledged"
        self.refused_file = folder / "refused"
        self.effects_file = folder / "effects"
        self.windows: list[Window] = []
        self._seen: list[Effect] = []

    def see(self, mark: str) -> None:
        """An effect arrived at a double."""
        self._seen.append(Effect(mark, time.time(), 0))

    @contextmanager
    def window(self, why: str, pid: int = 0) -> Iterator[None]:
        """While the block runs, ends may get unknown."""
        start = time.time()
        try:
            yield
        finally:
            self.windows.append(Window(start, time.time(), pid, why))

    def acknowledged(self) -> dict[str, str]:
        """The ids of the acknowledged jobs by mark."""
        return {words[0]: words[1] for words in lines(self.acknowledged_file)}

    def refused(self) -> Counter[str]:
        """The errors of the calls that were refused, by type."""
        return Counter(words[1] for words in lines(self.refused_file))

    def effects(self, more: Iterable[str] = ()) -> dict[str, list[Effect]]:
        """All effects by mark; ``more`` are marks of effects without a time, found in stores."""
        found: dict[str, list[Effect]] = defaultdict(list)
        for words in lines(self.effects_file):
            found[words[0]].append(Effect(words[0], float(words[1]), int(words[2])))
        for effect in [*self._seen, *(Effect(mark, 0.0, 0) for mark in more)]:
            found[effect.mark].append(effect)
        return found

    def lossy(self) -> set[str]:
        """The marks that were acknowledged while the documents state that jobs are lost."""
        windows = [window for window in self.windows if window.why == LOSSY]
        return {
            words[0]
            for words in lines(self.acknowledged_file)
            if any(window.start <= float(words[2]) <= window.end for window in windows)
        }

    def excused(self, effects: list[Effect]) -> bool:
        """Whether one of these runs was near a kill, a stop or a cut of its worker.

        A mail has no excuse, but for a Redis that loses what it has acknowledged, and its send record with it.
        """
        if kind_of(effects[0].mark) == "mail":
            return any(window.why == LOSSY for window in self.windows)
        return any(
            window.start - SLACK <= effect.at <= window.end + SLACK and window.pid in (0, effect.pid or window.pid)
            for effect in effects
            for window in self.windows
        )


class StallWatch:
    """Notes as windows when this machine itself stood still: leases and timeouts end in it."""

    def __init__(self, ledger: Ledger, longest: float = 1.5) -> None:
        self._ledger, self._longest = ledger, longest
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        last = time.time()
        while not self._over.wait(0.1):
            now = time.time()
            if now - last > self._longest:
                self._ledger.windows.append(Window(last, now, 0, "the machine stood still"))
            last = now
