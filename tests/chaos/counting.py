"""The counts of one run: what became of each acknowledged job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from rqjobs.database import analytics, exports, get_engine
from rqjobs.dead_letters.letters import DeadLetter, dead_letters
from tests.chaos.ledger import OWN_FAULT, Counts, Effect, Ledger, Window, kind_of


def count(name: str, ledger: Ledger, arrived: list[str], left: int) -> Counts:
    """Looks up each job of ``ledger``.

    Args:
        name: of the run.
        ledger: what was acknowledged, and the effects that came with a time.
        arrived: marks of the effects that the doubles keep themselves.
        left: how many jobs are still waiting, delayed or running.
    """
    acknowledged = ledger.acknowledged()
    by_id = {job_id: mark for mark, job_id in acknowledged.items()}
    stored, off = _stored(by_id)
    effects = ledger.effects([*stored, *arrived])
    ledger.windows += [
        Window(one.at, one.at, one.pid, "poison")
        for mark in effects
        if kind_of(mark) == "poison"
        for one in effects[mark]
    ]
    dead = {by_id[letter.job_id]: letter for letter in dead_letters() if letter.job_id in by_id}
    counts = Counts(name, acknowledged=len(acknowledged), refused=ledger.refused().total(), waiting=left)
    missing = [mark for mark in acknowledged if not _ended(mark, dead.get(mark), mark in effects, counts)]
    lossy = ledger.lossy()
    counts.stated = sum(mark in lossy for mark in missing)
    missing = [mark for mark in missing if mark not in lossy]
    counts.lost = max(0, len(missing) - left)
    counts.faults += [f"no effect: {mark} {acknowledged[mark]}" for mark in missing]
    for mark, seen in effects.items():
        if len(seen) > 1 and kind_of(mark) not in OWN_FAULT:
            _doubled(mark, seen, ledger, counts)
    counts.doubled += abs(off)
    if off:
        counts.faults.append(f"{off:+d} events counted against the events that are there")
    if counts.held and not ledger.windows:
        counts.faults.append(f"{counts.held} mails are held though nothing made their outcome unknown")
    if foreign := {error: n for error, n in ledger.refused().items() if error.startswith("foreign")}:
        counts.faults.append(f"calls raised what is not RQJobsError: {foreign}")
    return counts


def _ended(mark: str, letter: DeadLetter | None, done: bool, counts: Counts) -> bool:
    """Counts one job, and answers whether it has had its end."""
    if letter is not None:
        if kind_of(mark) in OWN_FAULT:
            counts.own += 1
        elif "may have been sent" in letter.reason:
            counts.held += 1
        else:
            counts.dead += 1
            counts.faults.append(f"dead: {mark} {letter.job_id}: {letter.reason[:200]}")
        return True
    if done and kind_of(mark) not in OWN_FAULT:
        counts.done += 1
        return True
    return False


def _doubled(mark: str, seen: list[Effect], ledger: Ledger, counts: Counts) -> None:
    if ledger.excused(seen):
        counts.excused += 1
        return
    counts.doubled += 1
    counts.faults.append(f"doubled: {mark}: {[(round(one.at, 2), one.pid) for one in seen]}")


def _stored(by_id: dict[str, str]) -> tuple[list[str], int]:
    """The marks of the events and exports that are there, and how many events more than these are counted."""
    with get_engine().connect() as database:
        events = list(database.scalars(select(analytics.events.c.event_id)))
        total = select(func.sum(analytics.counts.c.total)).where(
            analytics.counts.c.scope == "all", analytics.counts.c.metric.in_(("scan", "bot"))
        )
        counted = int(database.scalar(total) or 0)
        files = [row.id for row in database.execute(select(exports.exports)) if _exists(row)]
    return [*events, *(by_id[job_id] for job_id in files if job_id in by_id)], counted - len(events)


def _exists(row: Any) -> bool:
    return (Path(row.location) / row.file_name).exists()
