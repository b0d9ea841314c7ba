"""Writes PDF files: a table over many pages with wrapped cells, and the header on each page."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

from rqjobs.processors.export.pdf_document import StreamedDocument
from rqjobs.processors.export.pdf_fonts import Fonts
from rqjobs.processors.export.right_to_left import reads_from_right, visual
from rqjobs.processors.export.values import NESTED, SCALARS, Batch, Columns, converted, displayed, iso_datetime
from rqjobs.processors.export.writer import Heading, Writer

_PAPERS = ((842.0, 595.0), (1191.0, 842.0), (1684.0, 1191.0), (2384.0, 1684.0), (3370.0, 2384.0))
"""A4 to A0, landscape, in points. The smallest is used on which no short word is broken."""
_MARGIN = 28.0
_FOOT = 22.0
_PAD = 3.0
_SAMPLE = 200
_WORDS = re.compile(r"[^\s_/-]*[\s_/-]?")
_WORD = 12
"""Characters: longer words, such as addresses, may be broken."""

_TYPES = {
    **SCALARS,
    **NESTED,
    bool: lambda value: "true" if value else "false",
    int: str,
    float: repr,
    **{kind: convert for kind, convert in SCALARS.items() if convert is not None and kind is not bool},
}


def _cell_text(text: str) -> str:
    if text.isprintable():
        return text
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", "    ")
    return displayed(text)


class PdfWriter(Writer):
    """A table in landscape A4, or on larger paper if the columns need it.

    A row that does not fit on the page begins the next one; a row taller than a page is split.

    Args:
        file: an empty file, open for writing.
        heading: the columns, the title and the filters.
        fonts: TrueType files that are used before the installed fonts.
    """

    def __init__(self, file: BinaryIO, heading: Heading, *, fonts: Sequence[Path] = ()) -> None:
        gc.collect()  # reportlab's last document is a reference cycle, and East Asian fonts have tens of megabytes
        self._heading = heading
        self._document = StreamedDocument(file)
        self._fonts = Fonts(self._document, fonts)
        self._size = 7.0 if len(heading.columns) <= 12 else 6.0  # noqa: PLR2004  # beyond it cells get narrow
        self._leading = self._size * 1.25
        self._widths: list[float] = []
        self._header: list[list[str]] = []
        self._header_lines = 0
        self._right: list[bool] = []
        self._operators: list[str] = []
        self._y = 0.0
        self._rows = 0

    def write(self, batch: Batch) -> None:
        """Appends the rows of ``batch``."""
        columns = converted(batch.columns, _TYPES)
        texts = [[_cell_text(value) if value is not None else "" for value in column] for column in columns]
        if not self._widths:
            self._lay_out(texts, batch.columns)
        for row in zip(*texts, strict=True):
            self._row([self._wrap(text, width) for text, width in zip(row, self._widths, strict=True)])

    def close(self) -> None:
        """Ends the last page and writes the totals: the number of pages and of rows."""
        if not self._widths:
            self._lay_out([[] for _ in self._heading.columns], [])
        self._note_missing()
        self._end_page()
        pages, rows = str(self._document.page_count), f"{self._rows:,} row{'s' if self._rows != 1 else ''}"
        total = [
            "0.35 g",
            self._text(self._width - _MARGIN - 26, _MARGIN - 4, pages, 7),
            self._text(_MARGIN, _MARGIN - 4, f"{self._heading.title}, {rows}, {self._stamp()}", 7),
        ]
        self._document.setTitle(displayed(self._heading.title))
        self._document.setSubject(displayed(self._heading.filters) or "all rows")
        self._document.setAuthor("rqjobs")
        self._document.setCreator("rqjobs")
        self._document.finish("\n".join(total))

    # --- layout ------------------------------------------------------------------------------------------------------

    def _lay_out(self, texts: Sequence[Sequence[str]], given: Columns) -> None:
        """Computes the widths of the columns from the header and the first rows.

        Each column gets what it needs, or a share of the page if the page is too narrow.
        """
        needed, least = [], []
        for name, column in zip(self._heading.columns, texts, strict=True):
            lines = [name, *(line for text in column[:_SAMPLE] for line in text[:300].split("\n"))]
            needed.append(self._room(lines))
            least.append(self._room({word[:_WORD] for line in lines for word in _WORDS.findall(line)}))
        paper = next((paper for paper in _PAPERS if sum(least) <= paper[0] - 2 * _MARGIN), _PAPERS[-1])
        self._width, self._height = self._document.page_size = paper
        available = self._width - 2 * _MARGIN
        rest, widths = max(available - sum(least), 0.0), list(least)
        wanted = [whole - part for whole, part in zip(needed, least, strict=True)]
        for left, index in enumerate(sorted(range(len(wanted)), key=wanted.__getitem__)):
            more = min(wanted[index], rest / (len(wanted) - left))
            widths[index] += more
            rest -= more
        self._widths = [width * available / sum(widths) for width in widths]
        self._right = [_is_numeric(column[:_SAMPLE]) for column in given or [()] * len(widths)]
        most = int(self._height / 4 / self._leading)  # the header has at most a quarter of the page
        columns = zip(self._heading.columns, self._widths, strict=True)
        self._header = [self._wrap(_cell_text(name), width)[:most] for name, width in columns]
        self._header_lines = max(map(len, self._header))
        self._begin_page()

    def _room(self, lines: Iterable[str]) -> float:
        return max(map(self._measure, lines)) * 1.02 + 2 * _PAD

    def _measure(self, text: str) -> float:
        return self._fonts.width(text) * self._size / 1000

    def _wrap(self, text: str, width: float) -> list[str]:
        """Splits ``text`` into lines that fit: at blanks, after ``_``, ``/`` and ``-``, otherwise anywhere."""
        room = (width - 2 * _PAD) * 1000 / self._size
        if "\n" not in text and self._fonts.width(text) <= room:
            return [text] if text else []
        lines: list[str] = []
        for paragraph in text.split("\n"):
            lines += self._wrap_paragraph(paragraph, room)
        return lines

    def _wrap_paragraph(self, text: str, room: float) -> list[str]:
        widths = self._fonts.widths
        lines = []
        start, used, blank = 0, 0.0, -1
        for index, char in enumerate(text):
            used += widths[char]
            if char == " ":
                blank = index
            elif used > room and index > start:
                cut = blank + 1 if blank >= start else index
                lines.append(text[start:cut].rstrip(" "))
                start, blank = cut, -1
                used = self._fonts.width(text[start : index + 1])
            if char in "_/-":
                blank = index
        lines.append(text[start:].rstrip(" "))
        return lines

    # --- drawing -----------------------------------------------------------------------------------------------------

    def _row(self, cells: list[list[str]]) -> None:
        count = max(map(len, cells), default=1) or 1
        lowest = _MARGIN + _FOOT
        height = count * self._leading + 2 * _PAD
        if self._y - height < lowest and height <= self._top() - lowest:
            self._next_page()
        done = 0
        while done < count:
            space = int((self._y - lowest - 2 * _PAD) // self._leading)
            if space < 1:
                self._next_page()
                continue
            self._lines([lines[done : done + space] for lines in cells], min(space, count - done))
            done += space
        self._rows += 1

    def _lines(self, cells: Sequence[Sequence[str]], count: int) -> None:
        """Draws the lines of one row, or of its part that fits on this page."""
        height = count * self._leading + 2 * _PAD
        operators = self._operators
        total = sum(self._widths)
        if self._rows % 2:
            operators.append(f"0.955 g {_MARGIN:g} {self._y - height:.2f} {total:.2f} {height:.2f} re f 0 g")
        operators.append("BT")
        x = _MARGIN
        show, size = self._fonts.show, self._size
        for lines, width, right in zip(cells, self._widths, self._right, strict=True):
            y = self._y - _PAD - size
            for line in lines:
                if line:
                    at_right = right or (not line.isascii() and reads_from_right(line))
                    drawn = line if line.isascii() else visual(line)  # before its width: joined letters are narrower
                    left = x + width - _PAD - self._measure(drawn) if at_right else x + _PAD
                    operators.append(f"1 0 0 1 {left:.2f} {y:.2f} Tm {show(line, size)}")
                y -= self._leading
            x += width
        operators.append("ET")
        self._y -= height

    def _top(self) -> float:
        """Returns the height at which rows begin on every page after the first."""
        return self._height - _MARGIN - (self._header_lines * self._leading + 2 * _PAD)

    def _begin_page(self) -> None:
        self._operators = ["0 g"]
        self._y = self._height - _MARGIN
        if self._document.page_count == 0:
            self._operators.append(self._text(_MARGIN, self._y - 14, self._heading.title, 16))
            self._y -= 20
            filters = _cell_text(self._heading.filters or "all rows")
            lines = self._wrap(filters, (self._width - 2 * _MARGIN) * self._size / 8)
            for line in lines if len(lines) <= 3 else [*lines[:2], lines[2][:-1] + "\u2026"]:  # noqa: PLR2004
                self._operators.append("0.35 g " + self._text(_MARGIN, self._y - 9, line, 8) + " 0 g")
                self._y -= 11
            self._y -= 6
        height = self._header_lines * self._leading + 2 * _PAD
        total = sum(self._widths)
        self._operators.append(f"0.122 0.227 0.373 rg {_MARGIN:g} {self._y - height:.2f} {total:.2f} {height:.2f} re f")
        self._operators.append("1 g 1 G 2 Tr 0.2 w")  # fills and outlines: bold type without a second font
        rows, self._rows = self._rows, 0
        self._lines(self._header, self._header_lines)
        self._rows = rows
        self._operators.append("0 Tr 0 g 0 G")

    def _end_page(self) -> None:
        number = f"Page {self._document.page_count + 1} of "
        x = self._width - _MARGIN - 26 - self._fonts.width(number) * 7 / 1000
        self._operators.append("0.35 g " + self._text(x, _MARGIN - 4, number, 7) + " /Total Do")
        self._document.add_streamed_page("\n".join(self._operators))

    def _next_page(self) -> None:
        self._end_page()
        self._begin_page()

    def _text(self, x: float, y: float, text: str, size: float) -> str:
        return f"BT 1 0 0 1 {x:.2f} {y:.2f} Tm {self._fonts.show(_cell_text(text), size)} ET"

    def _stamp(self) -> str:
        return f"{iso_datetime(self._heading.created_at)[:16].replace('T', ' ')} UTC"

    def _note_missing(self) -> None:
        """Writes a note into the PDF and logs a warning if the fonts lack characters: readers would show no error."""
        if not self._fonts.missing:
            return
        if self._y < _MARGIN + _FOOT + 20:
            self._next_page()
        codes = ", ".join(f"U+{ord(char):04X}" for char in sorted(self._fonts.missing)[:12])
        note = f"Some characters are shown as \ufffd because no installed font has them: {codes}"
        self._operators.append("0.35 g " + self._text(_MARGIN, self._y - 14, note, 7) + " 0 g")


def _is_numeric(column: Sequence[Any]) -> bool:
    kinds = {type(value) for value in column if value is not None}
    return bool(kinds) and kinds <= {int, float, Decimal}
