"""Computes what events add to the counts, without I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from rqjobs.processors.analytics.events import QREvent

ALL = "all"

BREAKDOWNS = ("client", "place", "code")
"""The metrics with many values. Except in the scope of a single code they also have weekly sums: ``code_week``."""


Cell = tuple[str, str, str, str, int]
"""The key of one count: scope, metric, day (ISO 8601), value, and the quarter hour."""


class VisitorKey(NamedTuple):
    """One visitor of a code, or of all codes of an owner, on a UTC day."""

    day: str
    scope: str
    visitor: str


class Visit(NamedTuple):
    """A visitor's scans of one day: the quarter hour of the first, and whether there was another."""

    first: int
    again: bool


def quarter_of(moment: datetime) -> int:
    """Returns the quarter hour of the UTC day of ``moment``, 0 to 95."""
    return moment.hour * 4 + moment.minute // 15


def code_scope(qr_code_id: str) -> str:
    """Returns the scope of one code's counts."""
    return f"code:{qr_code_id}"


def user_scope(user_id: str) -> str:
    """Returns the scope of the counts of all codes of an owner."""
    return f"user:{user_id}"


def tally(events: Iterable[QREvent]) -> Counter[Cell]:
    """Returns what ``events`` add to the counts, except those of visitors."""
    cells: list[Cell] = []
    for event in events:
        day, quarter = event.occurred_at.date().isoformat(), quarter_of(event.occurred_at)
        code = code_scope(event.qr_code_id)
        scopes = (ALL, code) if event.user_id is None else (ALL, code, user_scope(event.user_id))
        if event.event != "scan":
            cells += [(scope, event.event, day, event.result or "", quarter) for scope in scopes]
        elif event.bot:
            cells += [(scope, "bot", day, "", quarter) for scope in scopes]
        else:
            client = f"{event.device}\t{event.os or ''}\t{event.browser or ''}"
            place = f"{event.country or ''}\t{event.city or ''}"
            for scope in scopes:
                cells += (
                    (scope, "scan", day, "", quarter),
                    (scope, "client", day, client, quarter),
                    (scope, "place", day, place, quarter),
                )
            cells += [(scope, "code", day, event.qr_code_id, quarter) for scope in scopes if scope is not code]
    return Counter(cells)


def by_week(cells: Mapping[Cell, int]) -> Counter[tuple[str, str, str, str]]:
    """Returns what ``cells`` add to the weekly sums, by scope, metric, Monday and value."""
    weeks: Counter[tuple[str, str, str, str]] = Counter()
    for (scope, metric, day, value, _), number in cells.items():
        if metric in BREAKDOWNS and not scope.startswith("code:"):
            weeks[scope, f"{metric}_week", monday(day), value] += number
    return weeks


@lru_cache(maxsize=512)
def monday(day: str) -> str:
    """Returns the Monday of the week of ``day``."""
    parsed = date.fromisoformat(day)
    return (parsed - timedelta(days=parsed.weekday())).isoformat()


def visits(events: Iterable[QREvent]) -> dict[VisitorKey, Visit]:
    """Returns the visitors of ``events``, per code and per owner (``user:`` for codes without an owner)."""
    seen: dict[VisitorKey, Visit] = {}
    for event in events:
        if event.event != "scan" or event.bot or event.visitor is None:
            continue
        day, quarter = event.occurred_at.date().isoformat(), quarter_of(event.occurred_at)
        for scope in (user_scope(event.user_id or ""), code_scope(event.qr_code_id)):
            key = VisitorKey(day, scope, event.visitor)
            before = seen.get(key)
            seen[key] = Visit(quarter, False) if before is None else Visit(min(before.first, quarter), True)
    return seen


def merge_visits(
    new: dict[VisitorKey, Visit], known: dict[VisitorKey, Visit]
) -> tuple[dict[VisitorKey, Visit], Counter[Cell]]:
    """Merges ``new`` scans into the visitors ``known``; returns the changed rows and the changes of the counts.

    A scan that arrives late may be earlier than the first known one; the visitor's count then moves to its quarter
    hour.
    """
    changed: dict[VisitorKey, Visit] = {}
    cells: Counter[Cell] = Counter()
    for key, visit in new.items():
        before = known.get(key)
        after = visit if before is None else Visit(min(before.first, visit.first), True)
        if after == before:
            continue
        changed[key] = after
        _add(cells, key, after, 1)
        if before is not None:
            _add(cells, key, before, -1)
    return changed, Counter({cell: number for cell, number in cells.items() if number})


def _add(cells: Counter[Cell], key: VisitorKey, visit: Visit, number: int) -> None:
    # Visitor keys differ between owners, so the visitors of the whole installation are the sum of all owners' visitors.
    scopes = [key.scope] if key.scope.startswith("code:") else [ALL, key.scope]
    for scope in scopes:
        if scope == user_scope(""):
            continue
        cells[scope, "visitor", key.day, "", visit.first] += number
        if visit.again:
            cells[scope, "returning", key.day, "", visit.first] += number
