"""A PDF document that is written page by page: reportlab keeps all pages in memory until it saves."""

from __future__ import annotations

import zlib
from array import array
from typing import Any, BinaryIO

from reportlab.pdfbase import pdfdoc

_PDFDocument: Any = pdfdoc.PDFDocument  # its published types lack half of its attributes


class StreamedDocument(_PDFDocument):  # type: ignore[misc]
    """reportlab's document for fonts, catalog and information; pages are written to ``file`` at once.

    ISO 32000-1, 7.5: a PDF file is its objects, then a table of their positions, then the trailer.
    """

    page_size: tuple[float, float]
    """The width and height in points of the pages that are added from now on."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(compression=1, lang="en")
        self._file = file
        self._offsets = array("Q", [0])
        self._kids = array("L")
        self.total_form = pdfdoc.PDFStream(pdfdoc.PDFDictionary({}))
        self._write(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
        self._pages_number = self._number(self.Reference(self.Pages))
        self._fonts = self.Reference(self.idToObject[pdfdoc.BasicFonts])
        self._total = self.Reference(self.total_form)
        self._resources_number = self._new_number()

    def add_streamed_page(self, operators: str) -> None:
        """Writes a page with these operators; ``/Total Do`` in them draws the form that :meth:`finish` defines."""
        page, content = self._new_number(), self._new_number()
        width, height = self.page_size
        self._kids.append(page)
        self._begin(page)
        self._write(
            f"<</Type/Page/Parent {self._pages_number} 0 R/MediaBox[0 0 {width:g} {height:g}]"
            f"/Resources {self._resources_number} 0 R/Contents {content} 0 R>>\nendobj\n".encode()
        )
        self._begin(content)
        self._write_stream("", operators)

    @property
    def page_count(self) -> int:
        """The number of pages written."""
        return len(self._kids)

    def finish(self, total: str) -> None:
        """Writes the fonts, the catalog, and the form ``/Total``, which draws the operators ``total`` on each page."""
        for font in self.delayedFonts:
            font.addObjects(self)
        total_number = self._number(self._total)
        fonts = f"<</Font {self._number(self._fonts)} 0 R"
        self._begin(self._resources_number)
        self._write(f"{fonts}/XObject<</Total {total_number} 0 R>>>>\nendobj\n".encode())
        self._begin(total_number)
        box = f"/Type/XObject/Subtype/Form/BBox[0 0 {self.page_size[0]:g} {self.page_size[1]:g}]/Resources {fonts}>>"
        self._write_stream(box, total)
        self._begin(self._pages_number)
        kids = " ".join(f"{number} 0 R" for number in self._kids)
        self._write(f"<</Type/Pages/Count {len(self._kids)}/Kids[{kids}]>>\nendobj\n".encode())
        self.Outlines.prepare(self, None)
        self.Catalog.Outlines = None
        catalog, info = self.Reference(self.Catalog), self.Reference(self.info)
        self._write_others()
        self._write_table(self._number(catalog), self._number(info))

    def _write_others(self) -> None:
        """Writes all objects registered with reportlab; formatting an object may register more of them."""
        number = 0
        while number < self.objectcounter:
            number += 1
            name = self.numberToId.get(number)
            if name is not None and (number >= len(self._offsets) or not self._offsets[number]):
                self._mark(number)
                self._write(pdfdoc.PDFIndirectObject(name, self.idToObject[name]).format(self))

    def _write_table(self, catalog: int, info: int) -> None:
        start = self._file.tell()
        self._write(f"xref\n0 {len(self._offsets)}\n0000000000 65535 f \n".encode())
        for offset in self._offsets[1:]:
            self._write(b"%010d 00000 %c \n" % (offset, b"n" if offset else b"f"))
        self._write(
            f"trailer\n<</Size {len(self._offsets)}/Root {catalog} 0 R/Info {info} 0 R>>\n"
            f"startxref\n{start}\n%%EOF\n".encode()
        )

    def _new_number(self) -> int:
        self.objectcounter += 1
        return int(self.objectcounter)

    def _number(self, reference: Any) -> int:
        return int(self.idToObjectNumberAndVersion[reference.name][0])

    def _begin(self, number: int) -> None:
        self._mark(number)
        self._write(f"{number} 0 obj\n".encode())

    def _mark(self, number: int) -> None:
        missing = number + 1 - len(self._offsets)
        if missing > 0:
            self._offsets.extend([0] * missing)
        self._offsets[number] = self._file.tell()

    def _write_stream(self, entries: str, operators: str) -> None:
        content = zlib.compress(operators.encode("latin-1"), 6)
        self._write(f"<<{entries}/Filter/FlateDecode/Length {len(content)}>>\nstream\n".encode())
        self._write(content)
        self._write(b"\nendstream\nendobj\n")

    def _write(self, content: bytes) -> None:
        self._file.write(content)
