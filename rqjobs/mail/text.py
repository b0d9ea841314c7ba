"""Makes the text part of a mail whose template has only HTML."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_SKIPPED = frozenset({"head", "style", "script", "title", "template"})
_VOID = frozenset({"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"})
_PARAGRAPHS = frozenset({"p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "table", "blockquote", "pre", "hr"})
_BLOCKS = frozenset({"div", "tr", "li", "section", "article", "header", "footer", "main", "dt", "dd"})
_ONLY_HTML = frozenset({"hidden", "data-html-only"})
_HIDDEN = re.compile(r"display\s*:\s*none", re.IGNORECASE)


class _Writer(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.links: list[tuple[str, int]] = []
        self.hidden: list[str] = []
        """The open tags from the outermost hidden one inwards."""
        self.link_end = 0
        """The number of parts up to the last link, whose URL ends its line."""
        self.in_cell = ""
        """The kind of the previous cell in this row, after which the next one needs a separator."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        hidden = tag in _SKIPPED or not _ONLY_HTML.isdisjoint(attributes) or _HIDDEN.search(attributes.get("style", ""))
        if self.hidden or hidden:
            if tag not in _VOID:
                self.hidden.append(tag)
            return
        if tag in _PARAGRAPHS:
            self.parts.append("\n\n")
        elif tag in _BLOCKS:
            self._break()
        self._start(tag, attributes)

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "br":
            self.parts.append("\n")
        elif tag == "hr":
            self.parts.append("-" * 40 + "\n\n")
        elif tag == "li":
            self.parts.append("- ")
        elif tag == "img":
            self.parts.append(attributes.get("alt", ""))
        elif tag == "tr":
            self.in_cell = ""
        elif tag in ("td", "th"):
            if self.link_end and any(part.strip() for part in self.parts[self.link_end :]):
                self.link_end = 0  # not searched again: every cell would search further back
            self.parts.append("\n" if self.link_end else {"": "", "th": ": ", "td": "   "}[self.in_cell])
            self.in_cell = tag
        elif tag == "a":
            self.links.append((attributes.get("href", ""), len(self.parts)))

    def handle_endtag(self, tag: str) -> None:
        if self.hidden:
            if tag in self.hidden:
                while self.hidden.pop() != tag:
                    pass
            return
        if tag == "a" and self.links:
            href, start = self.links.pop()
            label = "".join(self.parts[start:]).strip()
            if href.startswith(("http://", "https://")) and href != label:
                self.parts.append(f"\n{href}" if not label else f": {href}")
                self.link_end = len(self.parts)
        elif tag in _PARAGRAPHS:
            self.parts.append("\n\n")
        elif tag in _BLOCKS:
            self._break()

    def _break(self) -> None:
        """Begins a new line, unless one has just begun."""
        if next((not part.endswith("\n") for part in reversed(self.parts) if part.strip(" ")), False):
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.parts.append(re.sub(r"[ \t\r\n\f]+", " ", data))


def text_of(html: str) -> str:
    """Returns ``html`` as plain text: paragraphs, lists, table rows, and links with their URLs.

    Hidden parts (a preview line, styles) and elements with ``data-html-only`` are left out.
    """
    writer = _Writer()
    writer.feed(html)
    writer.close()
    # A run of them pads a preview line; a single one separates letters, as in Persian.
    text = re.sub("(?:\u200c[\u00a0 ]?){2,}", "", "".join(writer.parts))
    lines = [re.sub(r" {2,}(?! )", lambda m: m[0] if len(m[0]) == 3 else " ", line).strip()  # noqa: PLR2004  # between cells
             for line in text.replace("\u00a0", " ").split("\n")]  # fmt: skip
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"
