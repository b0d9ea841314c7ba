"""Converts database values to text, a column of a batch at a time, which is cheap for a million rows."""

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
"""Rows in column form: one sequence of values for each column."""
Table = Mapping[type, Callable[[Any], Any] | None]
"""The conversion for each type; None leaves the value as it is."""

_UTC = {None, UTC, ZoneInfo("UTC")}
_MOMENTS = {datetime, type(None)}
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_SURROGATES = re.compile("[\ud800-\udfff]")


class Batch:
    """Some rows, with values as :func:`normalised` returns them; made from columns or rows, it has both forms."""

    def __init__(self, columns: Columns | None = None, *, rows: Sequence[Sequence[Any]] = ()) -> None:
        self._columns = columns
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows if self._columns is None else self._columns[0])

    @property
    def columns(self) -> Columns:
        """The values of each column."""
        if self._columns is None:
            self._columns = list(zip(*self._rows, strict=True))
        return self._columns

    @property
    def rows(self) -> Iterable[Sequence[Any]]:
        """The values of each row."""
        return zip(*self._columns, strict=True) if self._columns is not None else self._rows


def converted(given: Columns, table: Table) -> list[Sequence[Any]]:
    """Returns ``given`` with each value converted by ``table``; a type that is not in it uses its base class."""
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
    if issubclass(kind, Enum):  # first, because an enum may be a str or an int as well
        return table.get(Enum, _enum)
    for base in kind.__mro__:
        if base in table:
            return table[base]
    return str


def iso_datetime(value: datetime) -> str:
    """Returns the moment in ISO 8601, in UTC with a ``Z``; a time without a zone stays as it is."""
    text = in_utc(value).isoformat()
    return text[:-6] + "Z" if text.endswith("+00:00") else text


def in_utc(value: datetime) -> datetime:
    """Returns the moment in UTC; a time without a zone, or one outside the calendar in UTC, stays as it is."""
    try:
        return value if value.tzinfo in _UTC else value.astimezone(UTC)
    except OverflowError:
        return value


def _all_in_utc(column: Sequence[datetime | None]) -> Sequence[datetime | None]:
    if {value.tzinfo for value in column if value is not None} <= _UTC:
        return column
    return [None if value is None else in_utc(value) for value in column]


def _all_iso(column: Sequence[datetime | None]) -> Sequence[str | None]:
    """Returns moments in ISO 8601 in UTC. orjson takes a tenth of the time, and its spelling is the same."""
    if orjson is not None:
        moments = _all_in_utc([value for value in column if value is not None])
        texts: list[str] = orjson.dumps(moments, None, orjson.OPT_UTC_Z).decode()[2:-2].split('","')
        if len(texts) == len(column):
            return texts
        following = iter(texts)
        return [None if value is None else next(following) for value in column]
    return [None if value is None else iso_datetime(value) for value in column]  # type: ignore[unreachable]


_WHOLE: Mapping[Any, Callable[[Sequence[Any]], Sequence[Any]]] = {iso_datetime: _all_iso, in_utc: _all_in_utc}
"""Conversions with a faster form for a whole column of moments and None."""


def iso_duration(value: timedelta) -> str:
    """Returns the duration in ISO 8601, in seconds: ``PT90.5S``."""
    return f"PT{value.total_seconds():.6f}".rstrip("0").rstrip(".") + "S"


def encode_bytes(value: bytes | bytearray | memoryview) -> str:
    """Returns ``value`` in Base64."""
    return base64.b64encode(value).decode()


def jsonable(value: Any) -> Any:
    """Returns ``value`` for JSON: moments in ISO 8601 in UTC, Decimals as text, NaN and infinity as None."""
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
    """Returns an object or a list of a JSON column as compact JSON text."""
    return json.dumps(jsonable(value), ensure_ascii=False, separators=(",", ":"))


def displayed(text: str) -> str:
    """Replaces control characters (except tab and line breaks) and lone surrogates in ``text`` by U+FFFD."""
    return _CONTROL.sub("\ufffd", text)


def whole(text: str) -> str:
    """Replaces lone surrogates, which UTF-8 cannot encode, in ``text`` by U+FFFD."""
    return _SURROGATES.sub("\ufffd", text)


def encode(text: str) -> bytes:
    """Returns ``text`` in UTF-8, with U+FFFD for lone surrogates."""
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
"""The conversions of scalar types for all formats except Excel."""
NESTED: Table = dict.fromkeys((dict, list, tuple, set, frozenset), json_text)
"""The conversions of nested types to JSON text, for formats without nested values."""
_NORMAL: Table = {object: None, Enum: None, datetime: in_utc, **dict.fromkeys(NESTED, jsonable)}


def normalised(columns: Columns) -> list[Sequence[Any]]:
    """Returns ``columns`` with moments in UTC if they have a zone, and with objects and lists of JSON types only."""
    return converted(columns, _NORMAL)


# --- formulas: texts that a spreadsheet would run --------------------------------------------------------------------

_FORMULA = "=+\\-@\uff1d\uff0b\uff0d\uff20"  # OWASP, "CSV Injection", with the full-width forms
_INVISIBLE = "\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
_BLANK = f"\\s\\x00-\\x20\\x7f-\\xa0{_INVISIBLE}"
_HOSTILE = re.compile(f"[\t\r\n]|[{_BLANK}]*+[{_FORMULA}]")
_NUMBER = re.compile(r"[+-]?(?:\d++(?:[.,]\d++)*+|[.,]\d++)(?:[eE][+-]?\d++)?%?", re.ASCII)
_GROUPS = r"(?: (?:\([0-9]++\) ?)?[0-9]++(?:[-/.][0-9]++)*+)"
_PHONE = re.compile(rf"\+[0-9]++{_GROUPS}++")
"""A phone number such as +49 151 2345000 or +1 (212) 555-0123; not +1-212-555-0123, which a spreadsheet calculates.

It has no letter, quote, bar or exclamation mark, so it cannot call a function. It has a blank between two numbers, so
it is no formula: in a formula a blank is the intersection of two ranges, and ranges have letters or colons.
"""
_SUSPECT = re.compile(f"\x01(?=[{_BLANK}{_FORMULA}])(?!(?:-[0-9]++|\\+[0-9]++{_GROUPS}*+)(?:\x01|\\Z))")
"""Finds, in the joined texts of a column, one that may be a formula and is not a plain number."""


def guard(text: str) -> str:
    """Returns ``text`` with a leading ``'`` if a spreadsheet would run it as a formula; otherwise unchanged.

    Plain numbers, and phone numbers with blanks, are unchanged.
    """
    return text if _HOSTILE.match(text) is None or _is_plain(text) else f"'{text}"


def _is_plain(text: str) -> bool:
    """Returns whether ``text`` is a number, or a phone number that a spreadsheet does not calculate."""
    return _NUMBER.fullmatch(text) is not None or _PHONE.fullmatch(text) is not None


def guard_column(column: Sequence[str]) -> Sequence[str]:
    """Returns ``column`` with its texts guarded.

    One search in the joined texts shows for most columns that none needs it.
    """
    joined = "\x01" + "\x01".join(column)
    if _SUSPECT.search(joined) is None and joined.count("\x01") == len(column):
        return column
    hostile = _HOSTILE.match
    return [value if hostile(value) is None or _is_plain(value) else f"'{value}" for value in column]
