"""A source for worker tests (RQJOBS_IMPORT): rows that come slowly, and the last half of them when the test says so."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from rqjobs.processors.export import processor
from rqjobs.sources import Filter, Source, register_source

processor._REPORT_EVERY = 0.1


def rows(user_id: str, filters: Mapping[str, object]) -> Iterator[tuple[str, int]]:
    """Five thousand rows a second, or so; in the middle it waits for a file named "go" in the worker's folder."""
    count = filters["count"]
    assert isinstance(count, int)
    for number in range(count):
        while number == count // 2 and not Path("go").exists():
            time.sleep(0.02)
        if number % 500 == 499:
            time.sleep(0.1)
        yield user_id, number


register_source(
    Source(
        name="slow",
        columns=("user_id", "number"),
        rows=rows,
        filters={"count": Filter(column="number", kind="integer")},
    )
)
