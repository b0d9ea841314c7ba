"""The outcomes of a claimed job, one class each: what finish.lua writes (rqjobs.worker.protocol encodes them)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(slots=True, eq=False)
class Outcome:
    """The result of one run, or of a claim without a run."""

    name: ClassVar[str]
    """The word for it in finish.lua and in the logs."""
    requeues: ClassVar[bool] = False
    """Whether the job waits or is delayed again."""
    started: float = field(default=0.0, kw_only=True)
    """Unix time at which the run began; 0 if there was none."""
    ended: float = field(default=0.0, kw_only=True)

    @property
    def size(self) -> int:
        """Characters of its result or error."""
        return 0


@dataclass(slots=True, eq=False)
class Done(Outcome):
    """The processor returned."""

    name = "done"
    result: str
    """The result as JSON; "" is none."""
    ttl: int
    """Seconds that the job and its result are kept; -1 is for ever."""

    @property
    def size(self) -> int:
        """Characters of its result."""
        return len(self.result)


@dataclass(slots=True, eq=False)
class Failed(Outcome):
    """A failed run."""

    error: str
    """The end of the traceback."""
    attempt: int
    """Which attempt failed, from 1."""
    retries_left: int | None
    """The new number of retries that the job has left; None leaves it as it is."""

    @property
    def size(self) -> int:
        """Characters of its error."""
        return len(self.error)


@dataclass(slots=True, eq=False)
class Retry(Failed):
    """A failed run, after which the job runs again."""

    name = "retry"
    requeues = True
    wait: float
    """Seconds until then."""


@dataclass(slots=True, eq=False)
class Dead(Failed):
    """A failed run, after which the job is dead."""

    name = "dead"
    ttl: int | None
    """Seconds that the dead job is kept; None is RQ's year, -1 is for ever."""
    index_entry: str
    """Its entry in the index of dead letters."""


@dataclass(slots=True, eq=False)
class Stopped(Dead):
    """A run that was stopped by command: dead, with RQ's status ``stopped``."""

    name = "stopped"


@dataclass(slots=True, eq=False)
class Forced(Dead):
    """Dead because Redis refused the true outcome: finish.lua deletes the keys of a wrong type first."""

    name = "forced"


@dataclass(slots=True, eq=False)
class Released(Outcome):
    """The job goes back unrun to the front of its queue; no attempt is counted."""

    name = "released"
    requeues = True


@dataclass(slots=True, eq=False)
class Held(Outcome):
    """The job goes back unrun and is delayed; no attempt is counted."""

    name = "held"
    requeues = True
    wait: float
    """Seconds, by Redis' clock."""
    reason: str = ""


@dataclass(slots=True, eq=False)
class Unavailable(Outcome):
    """A dependency is away: the job goes back, no attempt is counted, and its queue is held (holds.lua)."""

    name = "unavailable"
    requeues = True
    scope: str
    """The part of the queue that needs the dependency; "" is the whole queue."""
    dependency: str
    reason: str
    stage: str
    """``run`` or ``admit``: where it was found away. ``held``: the job has not tried it."""


@dataclass(slots=True, eq=False)
class WrittenByRQ(Outcome):
    """RQ's own methods ran the job and have written its outcome."""

    name = "written"


@dataclass(slots=True, eq=False)
class LeftToLease(Outcome):
    """No outcome is written: the rescuer decides once the job's lease has expired."""

    name = "left"
