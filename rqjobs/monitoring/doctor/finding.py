"""What one check says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The answer of one check."""

    name: str
    """What was looked at; empty until the check's name is filled in."""
    state: Literal["ok", "fault", "skipped"]
    said: str
    """What was seen, in a line."""
    mend: str | None = None
    """What to do about a fault."""


def fine(name: str, said: str) -> Finding:
    """Nothing is wrong."""
    return Finding(name=name, state="ok", said=said)


def skipped(name: str, why: str) -> Finding:
    """It could not be looked at."""
    return Finding(name=name, state="skipped", said=why)


def fault(name: str, said: str, mend: str) -> Finding:
    """Something is wrong, and this mends it."""
    return Finding(name=name, state="fault", said=said, mend=mend)
