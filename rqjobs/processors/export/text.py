"""CSV, JSON and NDJSON. All three are written batch by batch; CSV and NDJSON can be resumed anywhere between two."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any, BinaryIO

from rqjobs.processors.export.values import (
    NESTED,
    SCALARS,
    Batch,
    converted,
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

_CSV_TYPES = {**SCALARS, **NESTED, bool: {True: "true", False: "false"}.__getitem__}
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_JSON_TYPES = {**SCALARS, **dict.fromkeys(NESTED, jsonable), float: jsonable}
_ORJSON_TYPES = {**_JSON_TYPES, float: None, datetime: None, date: None}


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
        columns = converted(batch, _CSV_TYPES, guard_column if self._guarded else None)
        text = _csv_text(zip(*columns, strict=True))
        if self._guarded and has_inner(text, len(columns[0])):
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
        self._file.write(b"\n".join(objects(self._names, batch)) + b"\n")

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
        self._file.write(self._separator + b",\n".join(objects(self._names, batch)))
        self._separator = b",\n"

    def close(self) -> None:
        """Ends the array."""
        self._file.write(b"[]\n" if self._separator == b"[\n" else b"\n]\n")


def objects(names: Sequence[str], batch: Batch) -> list[bytes]:
    """Each row of ``batch`` as a JSON object."""
    if orjson is not None:
        columns = converted(batch, _ORJSON_TYPES)
        columns = [_in_utc(column) for column in columns]
        dumps, option = orjson.dumps, orjson.OPT_UTC_Z
        try:
            return [dumps(dict(zip(names, row)), None, option) for row in zip(*columns, strict=True)]  # noqa: B905
        except TypeError:  # a lone surrogate, or a number of more than 64 bits
            pass
    columns = converted(batch, _JSON_TYPES)
    return [_dump(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


def _in_utc(column: Sequence[Any]) -> Sequence[Any]:
    """Orjson writes moments as we do, once they are in UTC."""
    if datetime not in set(map(type, column)):
        return column
    return [
        value.astimezone(UTC) if isinstance(value, datetime) and value.tzinfo not in (None, UTC) else value
        for value in column
    ]


def _dump(row: dict[str, Any]) -> bytes:
    try:
        return _to_json(row).encode()
    except UnicodeEncodeError:  # JSON can say a lone surrogate: as an escape
        return json.dumps(row, separators=(",", ":")).encode()
