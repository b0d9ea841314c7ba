"""CSV, JSON and NDJSON. All three are written batch by batch; CSV and NDJSON can be resumed anywhere between two."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any, BinaryIO

from rqjobs.processors.export.values import (
    NESTED,
    SCALARS,
    Batch,
    columns_of,
    encode,
    guard,
    guard_column,
    guard_inner,
    has_inner,
    jsonable,
)
from rqjobs.processors.export.writing import Heading, Writer

try:
    import orjson
except ImportError:  # the extra `fast`
    orjson = None  # type: ignore[assignment]

_CSV_TYPES = {**SCALARS, **NESTED, bool: lambda value: "true" if value else "false"}
_NO_FLOATS = {**SCALARS, **dict.fromkeys(NESTED, jsonable)}
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_JSON_TYPES = {**_NO_FLOATS, float: jsonable}


class CsvWriter(Writer):
    """RFC 4180 with CRLF, UTF-8. None is an empty cell, a Boolean is ``true`` or ``false``.

    Args:
        bom: begin with a byte order mark, without which Excel takes UTF-8 for something else.
        guarded: defuse what a spreadsheet would run as a formula.
    """

    def __init__(self, file: BinaryIO, heading: Heading, *, bom: bool = True, guarded: bool = True) -> None:
        self._file = file
        self._guarded = guarded
        if file.tell() == 0:
            names = [guard(name) for name in heading.columns] if guarded else heading.columns
            file.write(("\ufeff" if bom else "").encode() + encode(_csv_text([names])))

    def write(self, batch: Batch) -> None:
        """Appends ``batch``."""
        columns = columns_of(batch, _CSV_TYPES)
        if self._guarded:
            columns = [guard_column(column) for column in columns]
        text = _csv_text(zip(*columns, strict=True))
        if self._guarded and has_inner(text):
            columns = [[guard_inner(v) if v.__class__ is str else v for v in column] for column in columns]
            text = _csv_text(zip(*columns, strict=True))
        self._file.write(encode(text))

    def close(self) -> None:
        """Nothing is left to write."""


def _csv_text(rows: Any) -> str:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\r\n").writerows(rows)
    return buffer.getvalue()


class NdjsonWriter(Writer):
    """One JSON object a line, UTF-8: moments ISO 8601 in UTC, Decimals as text, never altered otherwise."""

    def __init__(self, file: BinaryIO, heading: Heading) -> None:
        self._file = file
        self._names = heading.columns

    def write(self, batch: Batch) -> None:
        """Appends ``batch``."""
        self._file.write(b"".join(objects(self._names, batch, b"", b"\n")))

    def close(self) -> None:
        """Nothing is left to write."""


class JsonWriter(Writer):
    """One JSON array of objects, one a line; values as in NDJSON."""

    def __init__(self, file: BinaryIO, heading: Heading) -> None:
        self._file = file
        self._names = heading.columns
        self._separator = b"[\n"

    def write(self, batch: Batch) -> None:
        """Appends ``batch``."""
        parts = objects(self._names, batch, b",\n", b"")
        if parts:
            parts[0] = self._separator + parts[0].removeprefix(b",\n")
            self._separator = b",\n"
            self._file.write(b"".join(parts))

    def close(self) -> None:
        """Ends the array."""
        self._file.write(b"[]\n" if self._separator == b"[\n" else b"\n]\n")


def objects(names: Sequence[str], batch: Batch, before: bytes, after: bytes) -> list[bytes]:
    """Each row of ``batch`` as a JSON object between ``before`` and ``after``."""
    fast = orjson is not None
    columns = columns_of(batch, _NO_FLOATS if fast else _JSON_TYPES)  # orjson writes NaN as null by itself
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    if fast:
        dumps = orjson.dumps
        try:
            return [before + dumps(row) + after for row in rows]
        except TypeError:  # a lone surrogate, or a number of more than 64 bits
            rows = [{name: jsonable(value) for name, value in row.items()} for row in rows]
    return [before + _dump(row) + after for row in rows]


def _dump(row: dict[str, Any]) -> bytes:
    try:
        return _to_json(row).encode()
    except UnicodeEncodeError:  # JSON can say a lone surrogate: as an escape
        return json.dumps(row, separators=(",", ":")).encode()
