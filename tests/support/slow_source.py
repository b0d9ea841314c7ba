"""A source for worker tests (RQJOBS_IMPORT): rows that come slowly."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from rqjobs.processors.export import process
from rqjobs.sources import Filter, Source, register_source

process._REPORT_EVERY = 0.1


def rows(user_id: str, filters: Mapping[str, object]) -> Iterator[tuple[str, int]]:
    """Five thousand rows a second, or so."""
    count = filters["count"]
    assert isinstance(count, int)
    for number in range(count):
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
