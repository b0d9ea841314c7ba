"""Hooks: functions of the app that a worker calls when a job starts, is done, fails and will be retried, or is dead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, TypeVar, get_args

from rqjobs.errors import InvalidHook
from rqjobs.jobs import JobModel

Kind = Literal["start", "done", "retry", "dead"]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

FunctionT = TypeVar("FunctionT", bound=Callable[["JobEvent"], Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """An event of a job. For ``done``, ``retry`` and ``dead`` the outcome is already written to Redis."""

    kind: Kind
    job_id: str
    queue: str
    """The queue without its priority, such as ``email``."""
    lane: str
    """The queue with its priority, such as ``email:high``."""
    attempt: int
    """The number of this attempt, from 1."""
    attempts: int
    """The most attempts the job may have."""
    job: JobModel | None = None
    """The job as it was enqueued; None if its payload cannot be read."""
    enqueued_at: datetime | None = None
    started_at: datetime | None = None
    """The start of this attempt; None if the job is dead without a run, or with the worker that ran it."""
    ended_at: datetime | None = None
    """The end of this attempt; None for ``start``."""
    result: Any = None
    """The return value of the processor; only for ``done``."""
    error: str | None = None
    """The reason of the failure in one line; for ``retry`` and ``dead``."""
    traceback: str | None = None
    """The end of the traceback, at most 16,000 characters; for ``retry`` and ``dead``."""
    retry_at: datetime | None = None
    """The time of the next attempt; only for ``retry``."""

    @property
    def seconds(self) -> float | None:
        """The duration of the attempt in seconds."""
        if self.started_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.started_at).total_seconds()


@dataclass(frozen=True, slots=True)
class Hook:
    """A registered hook."""

    function: Callable[[JobEvent], Any]
    kinds: tuple[Kind, ...]
    queue: str | None

    @property
    def name(self) -> str:
        """The dotted name of its function."""
        module = getattr(self.function, "__module__", "")
        return f"{module}.{getattr(self.function, '__qualname__', repr(self.function))}"


_hooks: dict[tuple[str, tuple[Kind, ...], str | None], Hook] = {}


def on(*kinds: Kind, queue: str | None = None) -> Callable[[FunctionT], FunctionT]:
    """Registers a plain or an async function that a worker calls with a :class:`JobEvent`.

        @rqjobs.on("dead", queue="email")
        def tell_support(event: JobEvent) -> None: ...

    Each hook has its own thread in each worker, so a hook that raises or hangs is logged, and neither fails nor delays
    a job or another hook. At most 10,000 events wait for one hook; further ones are dropped and counted in the log. An
    async hook is cancelled after 30 s. The events of a worker that is killed are lost. The module must be named in
    RQJOBS_IMPORT, like those of own jobs.

    Args:
        kinds: one or more of ``start``, ``done``, ``retry`` (the attempt failed, another will follow) and ``dead``.
        queue: only jobs of this queue, in all its priorities; by default of all queues.

    Raises:
        InvalidHook: a kind is unknown or missing.
    """
    wrong = [kind for kind in kinds if kind not in KINDS]
    if wrong or not kinds:
        raise InvalidHook(str(wrong[0]) if wrong else "", KINDS)

    def register(function: FunctionT) -> FunctionT:
        hook = Hook(function, kinds, queue)
        _hooks[hook.name, kinds, queue] = hook  # a module that is loaded again replaces its hooks
        return function

    return register


def hooks_for(kind: Kind) -> list[Hook]:
    """Returns the hooks registered for ``kind``."""
    return [hook for hook in _hooks.values() if kind in hook.kinds]
