"""Writes Excel workbooks. openpyxl makes everything except the rows; this module writes the rows into the zip.

A row costs a tenth of the time that openpyxl or XlsxWriter need, and no cells or temporary files are kept.
"""

from __future__ import annotations

import io
import math
import re
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import IO, Any, BinaryIO

from rqjobs.processors.export.values import NESTED, SCALARS, Batch, Columns, converted, displayed, in_utc, iso_datetime
from rqjobs.processors.export.writer import Heading, Writer

# Microsoft, "Excel specifications and limits"
_ROWS = 1_048_576
_CELL = 32_767
_DIGITS = 15
_FIRST_DAY = date(1900, 3, 1)
"""Earlier dates are written as text: Excel's calendar has a 29 February 1900, which did not exist."""
_EPOCH = datetime(1899, 12, 30)  # noqa: DTZ001  # Excel has no time zones
_END = datetime(9999, 12, 31, 23, 59, 59, 500_000)  # noqa: DTZ001
"""Later moments are written as text: Excel would round them to the year 10000, which it does not support."""

_SHEET_BYTES = 1_900_000_000
"""The most bytes of one sheet; then the next one begins. A larger zip member needs ZIP64, which Excel reports as a
damaged file.
"""
_PAGE_WIDTH = 220
"""The most characters in one line of landscape A4 that are legible."""
_PIECE = 16_000
"""The most characters of one part of a long text: Excel counts UTF-16 units, so each may count twice."""
_LONG_TEXTS = "Long texts"
_STYLES = {
    "date": "yyyy-mm-dd",
    "datetime": "yyyy-mm-dd hh:mm:ss",
    "time": "hh:mm:ss",
    "duration": "[h]:mm:ss",
    "boolean": '"TRUE";"TRUE";"FALSE"',  # LibreOffice would show some as 1 and 0
    "text": "General",
}
_STYLE = {name: number for number, name in enumerate(_STYLES, 1)}  # number 0 is the default style
_HEIGHT = ' ht="15" customHeight="1"'
"""The height of one line, in points. It is set on every row so that a long text does not make its row taller."""
_TEXT = f' s="{_STYLE["text"]}" t="inlineStr"><is><t xml:space="preserve">'

_SPECIAL = re.compile("[&<>\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]|_x[0-9A-Fa-f]{4}_")
_DIMENSION = re.compile(rb"<dimension [^>]*/>")  # optional, and removed: it would state the header's row only
_XML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


class ExcelWriter(Writer):
    """One or more sheets with a frozen header with filters, typed dates and numbers, and texts that never are formulas.

    Moments are in UTC. A text too long for a cell is cut, and the sheet ``Long texts`` has all of it. Numbers of
    more than 15 digits are texts, because Excel would round them.

    Args:
        file: an empty file, open for writing.
        heading: the columns and the title of the sheets.
        workspace: a folder for temporary files.
        rows: the most rows of a sheet, including the header.
    """

    def __init__(self, file: BinaryIO, heading: Heading, *, workspace: Path, rows: int = _ROWS) -> None:
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=4)
        self._heading = heading
        self._limit = rows
        self._widths: list[int] = []
        self._sheet: _Sheet | None = None
        self._counts: list[int] = []
        self._long = _LongTexts(workspace)

    def write(self, batch: Batch) -> None:
        """Appends ``batch``; begins a new sheet when the last one is full."""
        done, count = 0, len(batch)
        while done < count:
            sheet = self._sheet or self._begin(batch.columns)
            space = self._limit - sheet.rows
            self._write_rows(sheet, [column[done : done + space] for column in batch.columns])
            done += space
            if sheet.rows >= self._limit or sheet.bytes >= _SHEET_BYTES:
                self._end()

    def close(self) -> None:
        """Ends the last sheet and writes the remaining parts of the workbook."""
        if self._sheet is not None or not self._counts:
            self._begin([])
            self._end()
        parts = self._skeleton()
        if self._long.rows:
            with self._zip.open(_sheet_path(len(self._counts) + 1), "w") as member:
                self._long.copy(member, parts[_sheet_path(len(self._counts) + 1)])
        for name, content in parts.items():
            if not name.startswith("xl/worksheets/sheet"):
                self._zip.writestr(name, content)
        self._zip.close()
        self._long.close()

    def abandon(self) -> None:
        """Discards the workbook.

        zipfile writes to its file once more when it is collected, so it gets a buffer instead.
        """
        self._zip.fp = io.BytesIO()
        self._long.close()

    def _begin(self, given: Columns) -> _Sheet:
        if self._sheet is None:
            self._widths = self._widths or _widths(self._heading.columns, given)
            self._counts.append(1)
            head, _, _ = self._skeleton()[_sheet_path(len(self._counts))].partition(b"</sheetData>")
            member = self._zip.open(_sheet_path(len(self._counts)), "w")
            member.write(head)
            self._sheet = _Sheet(member, self._title(len(self._counts)))
        return self._sheet

    def _end(self) -> None:
        assert self._sheet is not None
        self._counts[-1] = self._sheet.rows
        _, end, tail = self._skeleton()[_sheet_path(len(self._counts))].partition(b"</sheetData>")
        self._sheet.member.write(end + tail)
        self._sheet.member.close()
        self._sheet = None

    def _write_rows(self, sheet: _Sheet, given: Columns) -> None:
        columns = list(converted(given, _CELLS))
        for index, column in enumerate(columns):
            if _LongText in set(map(type, column)):
                columns[index] = [
                    self._long.add(sheet.title, f"{_letter(index)}{number}", cell) if type(cell) is _LongText else cell
                    for number, cell in enumerate(column, sheet.rows + 1)
                ]
        letters = [_letter(index) for index in range(len(columns))]
        lines = []
        for number, cells in enumerate(zip(*columns, strict=True), sheet.rows + 1):
            row = "".join(
                [
                    f'<c r="{letter}{number}"{cell}'
                    for letter, cell in zip(letters, cells, strict=True)
                    if cell is not None
                ]
            )
            lines.append(f'<row r="{number}"{_HEIGHT}>{row}</row>')
        sheet.rows += len(lines)
        content = "".join(lines).encode()
        sheet.bytes += len(content)
        sheet.member.write(content)

    def _title(self, number: int) -> str:
        title = re.sub(r"[][:*?/\\']", " ", displayed(self._heading.title))[:25].strip() or "Export"
        # Excel reserves the name History, and the sheet of long texts has the other name.
        return title if number == 1 and title.casefold() not in ("history", "long texts") else f"{title} {number}"

    def _skeleton(self) -> dict[str, bytes]:
        """Returns the parts of a workbook with these sheets as openpyxl makes them: each has its header and no rows."""
        from openpyxl import Workbook
        from openpyxl.styles import Alignment, Font, PatternFill
        from openpyxl.utils import get_column_letter
        from openpyxl.worksheet.properties import PageSetupProperties
        from openpyxl.worksheet.worksheet import Worksheet

        book = Workbook()
        _define_styles(book.worksheets[0])
        book.remove(book.worksheets[0])
        book.properties.title = displayed(self._heading.title)
        book.properties.creator = "rqjobs"
        book.properties.description = displayed(self._heading.filters)
        book.properties.created = self._heading.created_at.replace(tzinfo=None)
        bold = Font(name="Calibri", size=11, bold=True, color="FFFFFF")
        fill = PatternFill("solid", fgColor="1F3A5F")

        def add(title: str, names: Sequence[str], widths: Sequence[int], rows: int) -> Worksheet:
            sheet: Worksheet = book.create_sheet(title)
            for column, name in enumerate(names, 1):
                cell = sheet.cell(1, column, _printable(name))
                cell.data_type = "s"  # otherwise openpyxl makes a text that begins with = a formula
                cell.font, cell.fill, cell.alignment = bold, fill, Alignment(horizontal="left", indent=1)
                sheet.column_dimensions[get_column_letter(column)].width = widths[column - 1]
            sheet.freeze_panes = "A2"
            sheet.print_title_rows = "1:1"
            sheet.page_setup.orientation = "landscape"
            sheet.page_setup.fitToHeight = 0  # no limit on the number of pages
            sheet.page_setup.fitToWidth = 1 + sum(widths) // _PAGE_WIDTH
            sheet.sheet_properties.pageSetUpPr = PageSetupProperties(fitToPage=True)
            sheet.auto_filter.ref = f"A1:{get_column_letter(len(names))}{max(rows, 1)}"
            return sheet

        for number, rows in enumerate(self._counts, 1):
            add(self._title(number), self._heading.columns, self._widths, rows)
        if self._long.rows:
            add(_LONG_TEXTS, ("Sheet", "Cell", "Part", "Text"), (20, 10, 8, 100), self._long.rows + 1)
        buffer = io.BytesIO()
        book.save(buffer)
        with zipfile.ZipFile(buffer) as parts:
            content = {name: parts.read(name) for name in parts.namelist()}
        return {name: _DIMENSION.sub(b"", part) for name, part in content.items()}


class _Sheet:
    """The sheet that is currently written."""

    def __init__(self, member: IO[bytes], title: str) -> None:
        self.member = member
        self.title = title
        self.rows = 1  # the header
        self.bytes = 0


class _LongTexts:
    """Texts of more than 32,767 characters, split into parts and kept on disk until their sheet is written."""

    def __init__(self, workspace: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=workspace)  # noqa: SIM115  # closed by close()
        self.rows = 0

    def add(self, sheet: str, cell: str, text: str) -> str:
        """Stores ``text``; returns the text for its cell: its beginning, and a reference to the rest."""
        pieces = _pieces(text)
        first = self.rows + 2
        for part, piece in enumerate(pieces, 1):
            self.rows += 1
            number = self.rows + 1
            values = (_text_cell(sheet), _text_cell(cell), f"><v>{part}</v></c>", _text_cell(piece))
            cells = "".join(f'<c r="{letter}{number}"{value}' for letter, value in zip("ABCD", values, strict=True))
            self._file.write(f'<row r="{number}"{_HEIGHT}>{cells}</row>'.encode())
        return _text_cell(f"{pieces[0]}\u2026 [{_LONG_TEXTS}, row {first}]")

    def copy(self, member: IO[bytes], skeleton: bytes) -> None:
        """Writes the sheet of long texts to the zip member."""
        head, end, tail = skeleton.partition(b"</sheetData>")
        member.write(head)
        self._file.seek(0)
        while chunk := self._file.read(1 << 20):
            member.write(chunk)
        member.write(end + tail)

    def close(self) -> None:
        self._file.close()


def _define_styles(sheet: Any) -> None:
    """Makes the styles first, so that their numbers are those of ``_STYLE``."""
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.styles import Alignment

    for name, number_format in _STYLES.items():
        cell = WriteOnlyCell(sheet)
        cell.number_format = number_format
        if name == "text":
            cell.alignment = Alignment(horizontal="left", vertical="top", wrap_text=True, indent=1)
            cell.quotePrefix = True  # keeps the cell a text when a user edits it
        assert cell.style_id == _STYLE[name]


def _sheet_path(number: int) -> str:
    return f"xl/worksheets/sheet{number}.xml"


def _letter(index: int) -> str:
    from openpyxl.utils import get_column_letter

    return get_column_letter(index + 1)


def _widths(names: Sequence[str], given: Columns) -> list[int]:
    widths = []
    for name, column in zip(names, given or [()] * len(names), strict=True):
        longest = max(map(_shown, column[:200]), default=0)
        widths.append(min(max(len(name) + 5, longest + 4, 8), 60))
    return widths


def _shown(value: Any) -> int:
    return len("2026-01-31 23:59:59") if isinstance(value, datetime) else len(str("" if value is None else value))


# --- cells: what follows '<c r="A1"' ---------------------------------------------------------------------------------


class _LongText(str):
    """A text that is too long for a cell and goes to the sheet of long texts."""

    __slots__ = ()


def _printable(text: str) -> str:
    return _SPECIAL.sub(lambda match: match[0] if match[0] in _XML else _escape(match), text)


def _escape(match: re.Match[str]) -> str:
    found = match[0]
    if found in _XML:
        return _XML[found]
    if len(found) > 1:
        return f"_x005F{found}"  # ECMA-376, ST_Xstring: _xHHHH_ stands for a character, so a literal one is escaped
    return "\ufffd" if "\ud800" <= found <= "\udfff" else f"_x{ord(found):04X}_"


def _text_cell(text: str) -> str:
    if _SPECIAL.search(text):
        text = _SPECIAL.sub(_escape, text)
    return f"{_TEXT}{text}</t></is></c>"


def _text(value: str) -> str | None:
    if not value:
        return None
    if len(value) > _CELL // 2 and _units(value) > _CELL:
        return _LongText(value)
    return _text_cell(value)


def _units(text: str) -> int:
    """Returns the length of ``text`` in UTF-16 units, as Excel counts it."""
    return len(text) + sum(char > "\uffff" for char in text)


def _pieces(text: str) -> list[str]:
    return [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]


def _integer(value: int) -> str | None:
    return f"><v>{value}</v></c>" if abs(value) < 10**_DIGITS else _text(str(value))


def _float(value: float) -> str | None:
    return f"><v>{value!r}</v></c>" if math.isfinite(value) else _text(str(value))


def _decimal(value: Decimal) -> str | None:
    exact = value.is_finite() and len(value.as_tuple().digits) <= _DIGITS and abs(value.adjusted()) < _DIGITS
    return f"><v>{value:f}</v></c>" if exact else _text(str(value))


def _boolean(value: bool) -> str:
    return f' s="{_STYLE["boolean"]}" t="b"><v>{value:d}</v></c>'


def _datetime(value: datetime) -> str | None:
    if value.date() <= _FIRST_DAY:
        return _text(iso_datetime(value))
    value = in_utc(value)
    naive = value.replace(tzinfo=None)
    if value.utcoffset() or naive >= _END:
        return _text(iso_datetime(value))
    since = naive - _EPOCH
    days = since.days + (since.seconds + since.microseconds / 1e6) / 86400
    return f' s="{_STYLE["datetime"]}"><v>{days!r}</v></c>'


def _date(value: date) -> str | None:
    if value < _FIRST_DAY:
        return _text(value.isoformat())
    return f' s="{_STYLE["date"]}"><v>{(value - _EPOCH.date()).days}</v></c>'


def _time(value: time) -> str | None:
    if value.tzinfo is not None:
        return _text(value.isoformat())
    seconds = value.hour * 3600 + value.minute * 60 + value.second + value.microsecond / 1e6
    return f' s="{_STYLE["time"]}"><v>{seconds / 86400!r}</v></c>'


def _duration(value: timedelta) -> str | None:
    if value < timedelta():
        return _text(str(value))
    return f' s="{_STYLE["duration"]}"><v>{value.total_seconds() / 86400!r}</v></c>'


def _enum(value: Enum) -> str | None:
    convert = _CELLS.get(type(value.value), _other)
    return None if convert is None else convert(value.value)


def _other(value: Any) -> str | None:
    convert = SCALARS.get(type(value)) or NESTED.get(type(value)) or str
    return _text(convert(value))


_CELLS: dict[type, Callable[[Any], str | None] | None] = {
    **dict.fromkeys((*SCALARS, *NESTED, object), _other),
    Enum: _enum,
    type(None): None,
    str: _text,
    bool: _boolean,
    int: _integer,
    float: _float,
    Decimal: _decimal,
    datetime: _datetime,
    date: _date,
    time: _time,
    timedelta: _duration,
}
