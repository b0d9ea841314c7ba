"""Exports that end early."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


class Stopped(Exception):
    """The run ends here."""


def stop_after(rows: int) -> Callable[[Mapping[str, Any]], None]:
    """An attempt's ``report`` that ends the run once so many rows are written."""

    def report(progress: Mapping[str, Any]) -> None:
        if progress["rows"] >= rows:
            raise Stopped

    return report
