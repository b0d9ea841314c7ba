"""The outcomes of a claimed job, one class each; finish.lua writes them, and rqjobs.worker.protocol encodes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(slots=True, eq=False)
class Outcome:
    """The result of one run, or of a claim without a run."""

    name: ClassVar[str]
    """Its name in finish.lua and in the logs."""
    requeues: ClassVar[bool] = False
    """Whether the job is waiting or delayed afterwards."""
    started: float = field(default=0.0, kw_only=True)
    """The start of the run, in Unix time; 0 if there was none."""
    ended: float = field(default=0.0, kw_only=True)

    @property
    def size(self) -> int:
        """The number of characters of the result or error."""
        return 0


@dataclass(slots=True, eq=False)
class Done(Outcome):
    """The processor has returned."""

    name = "done"
    result: str
    """The result as JSON; "" if there is none."""
    ttl: int
    """Seconds that the job and its result are kept; -1 for ever."""
    batch: bytes = field(default=b"", kw_only=True)
    """The batch that counts the job; empty if none."""

    @property
    def size(self) -> int:
        """The number of characters of the result."""
        return len(self.result)


@dataclass(slots=True, eq=False)
class Failed(Outcome):
    """A failed run."""

    error: str
    """The end of the traceback."""
    attempt: int
    """The number of the failed attempt, from 1."""
    retries_left: int | None
    """The new number of retries left; None leaves it unchanged."""

    @property
    def size(self) -> int:
        """The number of characters of the error."""
        return len(self.error)


@dataclass(slots=True, eq=False)
class Retry(Failed):
    """A failed run, after which the job runs again."""

    name = "retry"
    requeues = True
    wait: float
    """Seconds until it runs again."""


@dataclass(slots=True, eq=False)
class Dead(Failed):
    """A failed run, after which the job is dead."""

    name = "dead"
    ttl: int | None
    """Seconds that the dead job is kept; None for RQ's default of a year, -1 for ever."""
    index_entry: str
    """Its entry in the index of dead letters."""


@dataclass(slots=True, eq=False)
class Stopped(Dead):
    """A run that a command has stopped: dead, with RQ's status ``stopped``."""

    name = "stopped"


@dataclass(slots=True, eq=False)
class Forced(Dead):
    """The job is dead because Redis refused its real outcome; finish.lua first deletes keys of the wrong type."""

    name = "forced"


@dataclass(slots=True, eq=False)
class Released(Outcome):
    """The job goes back to the front of its queue without a run; no attempt is counted."""

    name = "released"
    requeues = True


@dataclass(slots=True, eq=False)
class Held(Outcome):
    """The job is delayed without a run; no attempt is counted."""

    name = "held"
    requeues = True
    wait: float
    """The delay in seconds, by Redis' clock."""
    reason: str = ""


@dataclass(slots=True, eq=False)
class Unavailable(Outcome):
    """A dependency is unavailable: the job goes back, no attempt is counted, and its queue is held (holds.lua)."""

    name = "unavailable"
    requeues = True
    scope: str
    """The part of the queue that needs the dependency; "" is the whole queue."""
    dependency: str
    reason: str
    stage: str
    """Where it was found unavailable, ``run`` or ``admit``; ``held`` if the job itself has not tried it."""


@dataclass(slots=True, eq=False)
class WrittenByRQ(Outcome):
    """RQ's own methods ran the job and have written its outcome."""

    name = "written"


@dataclass(slots=True, eq=False)
class LeftToLease(Outcome):
    """No outcome is written; the rescuer decides after the job's lease has expired."""

    name = "left"
