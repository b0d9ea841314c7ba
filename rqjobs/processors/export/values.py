"""Values of a database as text: one column of a batch at a time, so that a million rows stay cheap."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

Batch = Sequence[Sequence[Any]]
"""Some rows, turned on their side: one sequence of values for each column."""
Table = Mapping[type, Callable[[Any], Any] | None]
"""How each type is written; None: as it is."""

_SURROGATES = re.compile("[\ud800-\udfff]")


def converted(batch: Batch, table: Table, texts: Callable[[Sequence[Any]], Sequence[Any]] | None = None) -> Batch:
    """``batch`` with each value converted by ``table``; a type that is not in it, by its base class.

    Args:
        batch: the columns.
        table: what converts which type.
        texts: what is done first to a whole column that has texts in it.
    """
    columns: list[Sequence[Any]] = []
    for column in batch:
        kinds = set(map(type, column))
        if texts is not None and str in kinds:
            column = texts(column)  # noqa: PLW2901
        converters = {kind: _converter(kind, table) for kind in kinds}
        needed = {kind: convert for kind, convert in converters.items() if convert is not None}
        if not needed:
            columns.append(column)
        elif len(kinds) == 1:
            convert = needed.popitem()[1]
            if convert is iso_datetime and not any([value.tzinfo for value in column]):  # noqa: C419  # faster
                convert = datetime.isoformat
            columns.append(list(map(convert, column)))
        else:
            get = needed.get
            columns.append([value if (c := get(type(value))) is None else c(value) for value in column])
    return columns


def _converter(kind: type, table: Table) -> Callable[[Any], Any] | None:
    if issubclass(kind, Enum):  # it may be a text or a number as well
        return table.get(Enum, _enum)
    for base in kind.__mro__:
        if base in table:
            return table[base]
    return str


def iso_datetime(value: datetime) -> str:
    """ISO 8601, in UTC with a ``Z``; a time without a zone stays as it is, its zone is not known to us."""
    text = value.isoformat()
    if value.tzinfo is None:
        return text
    if text[-6:] != "+00:00":
        text = value.astimezone(UTC).isoformat()
    return text[:-6] + "Z"


def iso_duration(value: timedelta) -> str:
    """ISO 8601, in seconds: ``PT90.5S``."""
    return f"PT{value.total_seconds():.6f}".rstrip("0").rstrip(".") + "S"


def encode_bytes(value: bytes | bytearray | memoryview) -> str:
    """Base64."""
    return base64.b64encode(value).decode()


def jsonable(value: Any) -> Any:
    """``value`` as JSON has it: moments ISO 8601 in UTC, Decimals as text, NaN and infinity as null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    if value is None or type(value) in (str, int, bool, float):
        return value
    convert = _converter(type(value), SCALARS)
    return value if convert is None else convert(value)


def json_text(value: Any) -> str:
    """An object or a list of a JSON column as one compact text."""
    return json.dumps(jsonable(value), ensure_ascii=False, separators=(",", ":"))


def whole(text: str) -> str:
    """``text`` with every lone surrogate, which no encoding can carry, as U+FFFD."""
    return _SURROGATES.sub("\ufffd", text)


def encode(text: str) -> bytes:
    """``text`` in UTF-8, lone surrogates as U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return whole(text).encode()


def _enum(value: Enum) -> Any:
    return jsonable(value.value)


SCALARS: Table = {
    type(None): None,
    bool: None,
    int: None,
    float: None,
    str: None,
    datetime: iso_datetime,
    date: date.isoformat,
    time: time.isoformat,
    timedelta: iso_duration,
    Decimal: str,
    UUID: str,
    bytes: encode_bytes,
    bytearray: encode_bytes,
    memoryview: encode_bytes,
}
"""What every format but a sheet writes in the same way."""
NESTED: Table = dict.fromkeys((dict, list, tuple, set, frozenset), json_text)
"""What formats of flat cells write as JSON."""

# --- what a spreadsheet would run ------------------------------------------------------------------------------------

_FORMULA = "=+\\-@\uff1d\uff0b\uff0d\uff20"  # OWASP, "CSV Injection", with the full-width forms
_BLANK = "\\s\\x00-\\x20\\x7f\\xa0\u200b-\u200f\u2060\ufeff"
_STARTS = frozenset("=+-@\uff1d\uff0b\uff0d\uff20\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\x7f").union(
    chr(code)
    for code in range(0x3001)
    if chr(code).isspace() or code <= 0x20  # noqa: PLR2004
)
_HOSTILE = re.compile(f"[\t\r\n]|[{_BLANK}]*[{_FORMULA}]")
_SUSPECT = re.compile(f"\x01[{re.escape(''.join(sorted(_STARTS)))}]")
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d+)*|[.,]\d+)([eE][+-]?\d+)?%?", re.ASCII)
_INNER = re.compile(f'([;\\t|]"?[{_BLANK}]*)(?=[{_FORMULA}])|([\\r\\n])(?=[=@\uff1d\uff20]|[+-][^ ])')


def guard(text: str) -> str:
    """``text`` with a leading ``'`` if a spreadsheet would take it for a formula; a plain number stays."""
    return f"'{text}" if _HOSTILE.match(text) and not _NUMBER.fullmatch(text) else text


def guard_inner(text: str) -> str:
    """The same after a separator or a line break within ``text``.

    Excel splits a CSV at ``;`` where the decimal sign is a comma, and a split text has lost its quotes.
    """
    return _INNER.sub(r"\1\2'", text)


def has_inner(text: str, rows: int) -> bool:
    """Whether :func:`guard_inner` may have something to do in these ``rows`` lines of CSV: a look at a whole batch."""
    if ";" in text or "\t" in text or "|" in text or text.count("\n") > rows or text.count("\r") > rows:
        return _INNER.search(text) is not None
    return False


def guard_column(column: Sequence[Any]) -> Sequence[Any]:
    """``column`` with its texts guarded. One search clears most columns whole; most texts, a look at their start."""
    starts = _STARTS
    try:
        if _SUSPECT.search("\x01" + "\x01".join(column)) is None:
            return column
        # Digits behind the first character: a phone number, mostly.
        return [
            guard(value) if value[:1] in starts and not (value[1:].isdecimal() and value[0] in "+-") else value
            for value in column
        ]
    except TypeError:  # not all of them are texts
        return [guard(value) if value.__class__ is str and value[:1] in starts else value for value in column]
