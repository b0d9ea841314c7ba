"""Values of a database as text: one column of a batch at a time, so that a million rows stay cheap."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

try:
    import orjson
except ImportError:  # the extra `fast`
    orjson = None  # type: ignore[assignment]

Columns = Sequence[Sequence[Any]]
"""Some rows turned on their side: one sequence of values for each column."""
Table = Mapping[type, Callable[[Any], Any] | None]
"""How each type is written; None: as it is."""

_UTC = {None, UTC, ZoneInfo("UTC")}
_MOMENTS = {datetime, type(None)}
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_SURROGATES = re.compile("[\ud800-\udfff]")


class Batch:
    """Some rows, with values as :func:`normalised` has them. Made of one form, it has the other when that is needed."""

    def __init__(self, columns: Columns | None = None, *, rows: Sequence[Sequence[Any]] = ()) -> None:
        self._columns = columns
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows if self._columns is None else self._columns[0])

    @property
    def columns(self) -> Columns:
        """One sequence of values for each column."""
        if self._columns is None:
            self._columns = list(zip(*self._rows, strict=True))
        return self._columns

    @property
    def rows(self) -> Iterable[Sequence[Any]]:
        """One sequence of values for each row."""
        return zip(*self._columns, strict=True) if self._columns is not None else self._rows


def converted(given: Columns, table: Table) -> list[Sequence[Any]]:
    """``given`` with each value converted by ``table``; a type that is not in it, by its base class."""
    columns: list[Sequence[Any]] = []
    for column in given:
        kinds = set(map(type, column))
        converters = {kind: _converter(kind, table) for kind in kinds}
        needed = {kind: convert for kind, convert in converters.items() if convert is not None}
        whole = _WHOLE.get(needed.get(datetime)) if kinds <= _MOMENTS else None
        if not needed:
            columns.append(column)
        elif whole is not None:
            columns.append(whole(column))
        elif len(kinds) == 1:
            columns.append(list(map(needed.popitem()[1], column)))
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
    text = in_utc(value).isoformat()
    return text[:-6] + "Z" if text.endswith("+00:00") else text


def in_utc(value: datetime) -> datetime:
    """The moment in UTC; a time without a zone stays as it is, and so does one that is beyond the calendar in UTC."""
    try:
        return value if value.tzinfo in _UTC else value.astimezone(UTC)
    except OverflowError:
        return value


def _all_in_utc(column: Sequence[datetime | None]) -> Sequence[datetime | None]:
    if {value.tzinfo for value in column if value is not None} <= _UTC:
        return column
    return [None if value is None else in_utc(value) for value in column]


def _all_iso(column: Sequence[datetime | None]) -> Sequence[str | None]:
    """Moments as ISO 8601 by orjson, in a tenth of the time; orjson's form is ours once they are in UTC."""
    if orjson is not None:
        moments = _all_in_utc([value for value in column if value is not None])
        texts: list[str] = orjson.dumps(moments, None, orjson.OPT_UTC_Z).decode()[2:-2].split('","')
        if len(texts) == len(column):
            return texts
        following = iter(texts)
        return [None if value is None else next(following) for value in column]
    return [None if value is None else iso_datetime(value) for value in column]  # type: ignore[unreachable]


_WHOLE: Mapping[Any, Callable[[Sequence[Any]], Sequence[Any]]] = {iso_datetime: _all_iso, in_utc: _all_in_utc}
"""What does the same for a column of moments (and None), faster."""


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


def displayed(text: str) -> str:
    """``text`` with each control character but tab and line breaks, and each lone surrogate, as U+FFFD."""
    return _CONTROL.sub("\ufffd", text)


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
"""The conversions of scalar types that all formats but Excel share."""
NESTED: Table = dict.fromkeys((dict, list, tuple, set, frozenset), json_text)
"""What formats of flat cells write as JSON."""
_NORMAL: Table = {object: None, Enum: None, datetime: in_utc, **dict.fromkeys(NESTED, jsonable)}


def normalised(columns: Columns) -> list[Sequence[Any]]:
    """``columns`` with moments that have a zone in UTC, and objects and lists of nothing but JSON's own types."""
    return converted(columns, _NORMAL)


# --- what a spreadsheet would run ------------------------------------------------------------------------------------

_FORMULA = "=+\\-@\uff1d\uff0b\uff0d\uff20"  # OWASP, "CSV Injection", with the full-width forms
_INVISIBLE = "\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
_BLANK = f"\\s\\x00-\\x20\\x7f-\\xa0{_INVISIBLE}"
_HOSTILE = re.compile(f"[\t\r\n]|[{_BLANK}]*+[{_FORMULA}]")
_NUMBER = re.compile(r"[+-]?(?:\d++(?:[.,]\d++)*+|[.,]\d++)(?:[eE][+-]?\d++)?%?", re.ASCII)
_GROUPS = r"(?: (?:\([0-9]++\) ?)?[0-9]++(?:[-/.][0-9]++)*+)"
_PHONE = re.compile(rf"\+[0-9]++{_GROUPS}++")
"""Such as +49 151 2345000 and +1 (212) 555-0123, but not +1-212-555-0123, which a spreadsheet calculates.

No letter, quote, bar or exclamation mark: it can call and fetch nothing. A blank between two numbers: it is no formula
at all, because in a formula a blank is the intersection of two ranges, and ranges have letters or colons.
"""
_SUSPECT = re.compile(f"\x01(?=[{_BLANK}{_FORMULA}])(?!(?:-[0-9]++|\\+[0-9]++{_GROUPS}*+)(?:\x01|\\Z))")
"""In a column, joined: texts that may be formulas and are no plain numbers."""


def guard(text: str) -> str:
    """``text`` with a leading ``'`` if a spreadsheet would take it for a formula; the rest is never altered.

    Plain numbers and phone numbers with blanks stay.
    """
    return text if _HOSTILE.match(text) is None or _is_plain(text) else f"'{text}"


def _is_plain(text: str) -> bool:
    """Whether ``text`` is a number, or a phone number that no spreadsheet would calculate."""
    return _NUMBER.fullmatch(text) is not None or _PHONE.fullmatch(text) is not None


def guard_column(column: Sequence[str]) -> Sequence[str]:
    """``column`` with its texts guarded. One search in all of them clears most columns."""
    joined = "\x01" + "\x01".join(column)
    if _SUSPECT.search(joined) is None and joined.count("\x01") == len(column):
        return column
    hostile = _HOSTILE.match
    return [value if hostile(value) is None or _is_plain(value) else f"'{value}" for value in column]
