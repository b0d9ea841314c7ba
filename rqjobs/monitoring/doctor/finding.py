"""The result of one check of ``rqjobs doctor``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check."""

    name: str
    """The name of the check, set by :func:`examine`."""
    state: Literal["ok", "fault", "skipped"]
    said: str
    """The result of the check, in one line."""
    fix: str | None = None
    """The fix of a fault."""


def fine(name: str, said: str) -> Finding:
    """Returns the finding of a check without a fault."""
    return Finding(name=name, state="ok", said=said)


def skipped(name: str, why: str) -> Finding:
    """Returns the finding of a check that could not run; ``why`` is the reason."""
    return Finding(name=name, state="skipped", said=why)


def fault(name: str, said: str, fix: str) -> Finding:
    """Returns a fault: ``said`` is the result of the check, ``fix`` is what to do."""
    return Finding(name=name, state="fault", said=said, fix=fix)
