"""The result of one check of ``rqjobs doctor``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check."""

    name: str
    """The name of the check; empty until :func:`examine` fills it in."""
    state: Literal["ok", "fault", "skipped"]
    said: str
    """One line: what the check found."""
    fix: str | None = None
    """The fix of a fault."""


def fine(name: str, said: str) -> Finding:
    """A check that found no fault."""
    return Finding(name=name, state="ok", said=said)


def skipped(name: str, why: str) -> Finding:
    """A check that could not run; ``why`` is the reason."""
    return Finding(name=name, state="skipped", said=why)


def fault(name: str, said: str, fix: str) -> Finding:
    """A fault: ``said`` is what was found, ``fix`` what to do about it."""
    return Finding(name=name, state="fault", said=said, fix=fix)
