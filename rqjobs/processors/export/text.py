"""Writes CSV, JSON and NDJSON batch by batch. CSV and NDJSON can be resumed after any batch."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from functools import cache
from typing import Any, BinaryIO

from rqjobs.processors.export.values import (
    NESTED,
    SCALARS,
    Batch,
    converted,
    encode,
    guard_column,
    jsonable,
)
from rqjobs.processors.export.writer import Heading, Writer

try:
    import orjson
except ImportError:  # the extra `fast`
    orjson = None  # type: ignore[assignment]

_CSV_TYPES: dict[type, Callable[[Any], Any] | None] = {
    **SCALARS,
    **NESTED,
    bool: {True: "true", False: "false"}.__getitem__,
    Enum: lambda value: converted([[value.value]], _CSV_TYPES)[0][0],
}
_NUMBERS = {int, float, type(None)}
_QUOTE = '"'
_QUOTED = re.compile('[",\r\n]')
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_JSON_TYPES = {**SCALARS, **dict.fromkeys(NESTED, jsonable), float: jsonable}
_BREAK = b"\n" * 16
"""Separates two rows, because orjson writes no line breaks. Its length makes the search for it fast."""


class CsvWriter(Writer):
    """Writes CSV by RFC 4180, with CRLF, in UTF-8. None is an empty cell, a Boolean is ``true`` or ``false``.

    Args:
        file: open for writing, at its end.
        heading: the names of the columns.
        bom: begin with a byte order mark, without which Excel does not read the file as UTF-8.
        guarded: change texts that a spreadsheet would run as a formula.
    """

    def __init__(self, file: BinaryIO, heading: Heading, *, bom: bool = True, guarded: bool = True) -> None:
        self._file = file
        self._guarded = guarded
        # Half the time of csv.writer, which checks each character; here only columns that need it are quoted.
        self._line = (",".join(["%s"] * len(heading.columns)) + "\r\n").__mod__
        if file.tell() == 0:
            file.write(b"\xef\xbb\xbf" if bom else b"")
            self.write(Batch(rows=[heading.columns]))

    def write(self, batch: Batch) -> None:
        """Appends ``batch``."""
        columns = [_csv_cells(column, guarded=self._guarded) for column in converted(batch.columns, _CSV_TYPES)]
        if len(columns) == 1:
            columns = [['""' if cell == "" else cell for cell in columns[0]]]  # readers skip an empty line
        self._file.write(encode("".join(map(self._line, zip(*columns, strict=True)))))

    def close(self) -> None:
        """Does nothing: a CSV file has no end mark."""


def _csv_cells(column: Sequence[Any], *, guarded: bool) -> Sequence[Any]:
    """Returns the cells of ``column`` as CSV text: None as an empty cell, texts guarded and quoted where needed."""
    kinds = set(map(type, column))
    if type(None) in kinds:
        column = ["" if value is None else value for value in column]
    if kinds <= _NUMBERS:
        return column
    if kinds & _NUMBERS - {type(None)}:  # SQLite may keep texts and numbers in one column
        return [value if value.__class__ in _NUMBERS else _csv_cells([value], guarded=guarded)[0] for value in column]
    if guarded:
        column = guard_column(column)
    text = "\x01".join(column)
    if '"' in text or "," in text or "\n" in text or "\r" in text:
        quoted = _QUOTED.search
        column = [f'"{value.replace(_QUOTE, _QUOTE * 2)}"' if quoted(value) else value for value in column]
    return column


class NdjsonWriter(Writer):
    """Writes one JSON object per line, in UTF-8: moments in ISO 8601 in UTC, Decimals as text."""

    def __init__(self, file: BinaryIO, heading: Heading) -> None:
        self._file = file
        self._names = heading.columns

    def write(self, batch: Batch) -> None:
        """Appends ``batch``."""
        self._file.write(objects(self._names, batch, b"\n") + b"\n")

    def close(self) -> None:
        """Does nothing: an NDJSON file has no end mark."""


class JsonWriter(Writer):
    """Writes one JSON array with one object per line; values as in NDJSON."""

    def __init__(self, file: BinaryIO, heading: Heading) -> None:
        self._file = file
        self._names = heading.columns
        self._separator = b"[\n"

    def write(self, batch: Batch) -> None:
        """Appends ``batch``."""
        self._file.write(self._separator + objects(self._names, batch, b",\n"))
        self._separator = b",\n"

    def close(self) -> None:
        """Ends the array."""
        self._file.write(b"[]\n" if self._separator == b"[\n" else b"\n]\n")


def objects(names: Sequence[str], batch: Batch, separator: bytes) -> bytes:
    """Returns the rows of ``batch`` as JSON objects, separated by ``separator``."""
    if orjson is not None:
        items: list[Any] = [orjson.Fragment(_BREAK)] * (2 * len(batch) - 1)
        items[::2] = _dicts_of(tuple(names))(batch.rows)
        options = orjson.OPT_UTC_Z | orjson.OPT_PASSTHROUGH_DATACLASS
        try:
            # One call for all rows: orjson allocates a buffer at each call.
            return separator.join(orjson.dumps(items, _default, options)[1:-1].split(b"," + _BREAK + b","))
        except TypeError:  # a lone surrogate, an integer of more than 64 bits, or a key that is not a text
            pass
    columns = converted(batch.columns, _JSON_TYPES)
    return separator.join([_dump(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)])


@cache
def _dicts_of(names: tuple[str, ...]) -> Callable[[Iterable[Sequence[Any]]], list[dict[str, Any]]]:
    """Returns a function that makes rows dicts.

    A dict display with fixed keys takes half the time of ``dict(zip())``.
    """
    values = [f"v{index}" for index in range(len(names))]
    pairs = ", ".join(f"{name!r}: {value}" for name, value in zip(names, values, strict=True))
    code = f"lambda rows: [{{{pairs}}} for {', '.join(values)}, in rows]"
    made: Callable[[Iterable[Sequence[Any]]], list[dict[str, Any]]] = eval(code)  # noqa: S307  # repr() of a text is a text's literal
    return made


def _default(value: Any) -> Any:
    """Returns the JSON value of an object whose type orjson does not support."""
    convert = SCALARS.get(type(value))
    return jsonable(value) if convert is None else convert(value)


def _dump(row: dict[str, Any]) -> bytes:
    try:
        return _to_json(row).encode()
    except UnicodeEncodeError:  # JSON can hold a lone surrogate as an escape
        return json.dumps(row, separators=(",", ":")).encode()
