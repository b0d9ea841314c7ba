"""A schedule as it is stored in Redis, and as commands and pages show it."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypedDict

from rqjobs.schedules.ticks import Timing, timing

CatchUp = Literal["last", "all", "none"]
Overlap = Literal["skip", "queue"]
CATCH_UP: tuple[CatchUp, ...] = ("last", "all", "none")
OVERLAP: tuple[Overlap, ...] = ("queue", "skip")

SHOWN = ("version", "definition", "paused", "lane")
"""The fields of a schedule's hash from which :class:`Schedule` is made, in this order."""


class ScheduleOptions(TypedDict, total=False):
    """The times of a schedule, and the handling of missed and overlapping ticks."""

    cron: str | None
    """Minute, hour, day, month, weekday: ``"0 3 * * *"``; or ``@hourly``, ``@daily``, ``@weekly``, ``@monthly``."""
    every: timedelta | str | None
    """An interval of 1 s or more instead of ``cron``, counted from ``starts``, or from 1970 (UTC) without it."""
    timezone: str
    """The IANA zone of ``cron``; ``"UTC"`` by default."""
    starts: datetime | None
    """No tick before this time, which has a time zone."""
    ends: datetime | None
    """No tick after this time, which has a time zone."""
    catch_up: CatchUp
    """The handling of ticks missed by more than a minute because no worker ran: ``"last"`` (the default) runs the last
    one, unless a later tick is due as well; ``"all"`` the last 100; ``"none"`` none.
    """
    overlap: Overlap
    """The handling of a tick while the job of an earlier one has not ended: ``"queue"`` (the default) enqueues it,
    ``"skip"`` does not.
    """
    jitter: timedelta | str | None
    """The longest random delay of each job."""


@dataclass(frozen=True, kw_only=True)
class Tick:
    """The result of one tick, or of several that were skipped together."""

    at: datetime
    """The time of the tick, in UTC."""
    job_id: str | None
    """The id of the job; None if the tick was skipped."""
    late: timedelta
    """The time by which it was late."""
    skipped: str | None = None
    """Why it was skipped."""
    last: datetime | None = None
    """The last of the ticks that were skipped with it."""
    manual: bool = False
    """Whether a user ran it (``run_now``)."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A schedule and its last 20 ticks."""

    name: str
    queue: str
    lane: str
    cron: str | None
    every: timedelta | None
    timezone: str
    starts: datetime | None
    ends: datetime | None
    catch_up: str
    overlap: str
    jitter: timedelta | None
    source: Literal["code", "redis"]
    """``code``: declared by ``@rqjobs.job(cron=...)``; ``redis``: added by a call or a command."""
    state: Literal["active", "paused", "ended", "unreadable"]
    next: datetime | None
    """The next tick; None unless it is active."""
    ticks: list[Tick] = field(default_factory=list)
    """The last ticks, newest first."""
    version: str = ""

    @property
    def when(self) -> str:
        """The times in one line: ``0 3 * * * Europe/Berlin``, ``every 300s``."""
        return (
            f"{self.cron} {self.timezone}" if self.cron else f"every {(self.every or timedelta()).total_seconds():g}s"
        )


def timing_of(definition: dict[str, Any]) -> Timing:
    """Returns the timing in the definition of a schedule.

    Raises:
        ValueError, KeyError, TypeError: it is malformed.
    """
    return timing(*(definition[name] for name in ("cron", "every", "timezone", "starts", "ends")))


def read_schedule(name: str, fields: list[Any], score: float | None, ticks: list[bytes]) -> Schedule:
    """Returns the schedule with these fields (:data:`SHOWN`) in its hash; ``score`` is its next tick."""
    version, definition, paused, lane = (None if each is None else each.decode(errors="replace") for each in fields)
    upcoming = None
    with contextlib.suppress(ValueError, OverflowError, OSError):  # infinite if it is paused or ended
        upcoming = None if score is None else datetime.fromtimestamp(score, UTC)
    history = [tick for tick in map(_tick, ticks) if tick is not None]
    common: dict[str, Any] = {"name": name, "lane": lane or "", "ticks": history, "version": version or ""}
    try:
        known = json.loads(definition or "")
        timing_of(known)
        seconds: dict[str, Any] = {
            key: None if known[key] is None else timedelta(seconds=known[key]) for key in ("every", "jitter")
        }
        moments: dict[str, Any] = {
            key: None if known[key] is None else datetime.fromtimestamp(known[key], UTC) for key in ("starts", "ends")
        }
        texts: dict[str, Any] = {
            key: known[key] for key in ("queue", "cron", "timezone", "catch_up", "overlap", "source")
        }
    except (ValueError, KeyError, TypeError, OverflowError, OSError, RecursionError):
        blank: dict[str, Any] = dict.fromkeys(("cron", "every", "starts", "ends", "jitter", "next"))
        unknown: dict[str, Any] = {**dict.fromkeys(("queue", "timezone", "catch_up", "overlap"), ""), "source": "redis"}
        return Schedule(**common, **blank, **unknown, state="unreadable")
    state: Any = "paused" if paused else "active" if upcoming else "ended"
    return Schedule(**common, **texts, **seconds, **moments, state=state, next=upcoming)


def _tick(raw: bytes) -> Tick | None:
    try:
        entry = json.loads(raw)
        return Tick(
            at=datetime.fromtimestamp(float(entry["tick"]), UTC),
            job_id=entry["job"] or None,
            late=timedelta(seconds=float(entry["late"])),
            skipped=entry["skipped"] or None,
            last=datetime.fromtimestamp(float(entry["last"]), UTC) if entry["last"] else None,
            manual=bool(entry["manual"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError, OSError, RecursionError):
        return None
