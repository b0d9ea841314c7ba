"""The fonts of a PDF: Noto Sans first, and for each character that it lacks the next installed font that has it.

reportlab reads and embeds the fonts; this module chooses the font of each character.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from reportlab.pdfbase.ttfonts import TTFont

from rqjobs.processors.export.right_to_left import visual

_INSTALLED = (
    ("fontpkg_noto_sans", "files/NotoSans[[]wdth,wght[]].ttf"),
    ("fontpkg_noto_sans_arabic", "files/*.ttf"),
    ("justmytype_intl_cjk", "fonts/ofl/notosanssc/*.ttf"),
    ("justmytype_intl_cjk", "fonts/ofl/notosansjp/*.ttf"),
    ("justmytype_intl_cjk", "fonts/ofl/notosanskr/*.ttf"),
    ("justmytype_intl_cjk", "fonts/ofl/notosanstc/*.ttf"),
)
"""Packages with fonts, and the pattern of the font files in each; only the extra `fonts` installs all of them."""

_SPECIAL = re.compile(rb"[\\()\r\n]")
_MISSING = "\ufffd"


class Fonts:
    """The fonts of one document.

    Args:
        document: reportlab's PDFDocument, in which the fonts are embedded.
        files: TrueType files that are searched before the installed fonts.
    """

    def __init__(self, document: Any, files: Sequence[Path] = ()) -> None:
        self._document = document
        self._waiting = _files(files)
        self._faces: list[TTFont] = []
        self._thin: set[int] = set()
        self.widths = _Widths(self)
        self.faces: dict[str, int] = {}
        self.missing: set[str] = set()
        """The characters that no font has."""
        self._load()
        self._base = _ascii_name(self._faces[0], self._document)

    def width(self, text: str) -> float:
        """Returns the width of ``text`` in thousandths of the font size."""
        return sum(map(self.widths.__getitem__, text))

    def show(self, text: str, size: float) -> str:
        """Returns the operators that draw one line of ``text`` at the current position."""
        if text.isascii():  # in subset 0 of the first font ASCII characters keep their codes
            return f"{self._base} {size:g} Tf ({_escape(text.encode())}) Tj"
        self.width(text)  # chooses the font of each character
        parts = []
        for face, chars in groupby(visual(text), key=self._face_of):
            font = self._faces[face]
            shown = "".join(char if char not in self.missing else _MISSING for char in chars)
            for subset, codes in font.splitString(shown, self._document):
                name = font.getSubsetInternalName(subset, self._document)
                drawn = f"{name} {size:g} Tf ({_escape(codes)}) Tj"
                # A variable font is drawn in its default weight, which is hairline in Noto's East Asian fonts.
                parts.append(f"2 Tr {size / 30:.2f} w {drawn} 0 Tr" if face in self._thin else drawn)
        return " ".join(parts)

    def find(self, char: str) -> tuple[int, float]:
        """Returns the number of the first font that has ``char``, and the character's width.

        Fonts are read when they are first needed.
        """
        code = ord(char)
        number = 0
        while number < len(self._faces) or self._load():
            face: Any = self._faces[number].face
            if code in face.charToGlyph:
                return number, face.getCharWidth(code)
            number += 1
        if not char.isspace():
            self.missing.add(char)
        first: Any = self._faces[0].face
        return 0, first.getCharWidth(ord(_MISSING))

    def _face_of(self, char: str) -> int:
        if char not in self.faces:
            self.widths[char]
        return self.faces[char]

    def _load(self) -> bool:
        file = next(self._waiting, None)
        if file is None:
            return False
        font = TTFont(f"rqjobs-{len(self._faces)}", str(file), asciiReadable=True)
        if font.face.name.endswith(b"Thin"):
            self._thin.add(len(self._faces))
        self._faces.append(font)
        return True


class _Widths(dict[str, float]):
    def __init__(self, fonts: Fonts) -> None:
        super().__init__()
        self._fonts = fonts

    def __missing__(self, char: str) -> float:
        self._fonts.faces[char], self[char] = self._fonts.find(char)
        return self[char]


def _ascii_name(font: TTFont, document: Any) -> str:
    """Returns the name under which the page's operators select the ASCII subset of ``font``."""
    font.splitString("a", document)
    name: str = font.getSubsetInternalName(0, document)
    return name


def _files(first: Sequence[Path]) -> Iterator[Path]:
    yield from first
    for package, pattern in _INSTALLED:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            yield from sorted(Path(folder).glob(pattern))


def _escape(codes: bytes) -> str:
    if _SPECIAL.search(codes):
        codes = _SPECIAL.sub(lambda match: b"\\%03o" % match[0][0], codes)
    return codes.decode("latin-1")
