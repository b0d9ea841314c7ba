"""Writes and folds the header fields of a mail (RFC 5322, RFC 2047).

Python's own folding loses blanks between encoded words (before 3.13), makes encoded words of 76 characters in names,
and folds a long name without its quotes.
"""

from __future__ import annotations

import base64
import re
import textwrap
from collections.abc import Callable

from rqjobs.config.addresses import Mailbox

_LINE = 76  # characters of a line with an encoded word (RFC 2047, 2)
_WORD = 75  # characters of an encoded word (RFC 2047, 2)
_FRAME = len("=?utf-8?q??=")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")  # RFC 5322, 3.2.3
_AS_IT_IS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")  # RFC 2047, 5 (3)


def write_text(name: str, text: str) -> str:
    """Returns the field ``name: text`` without its line end, such as a subject.

    Decoding it returns ``text`` with all blanks.
    """
    start = f"{name}: "
    words = text.split(" ")
    if _is_plain(text):
        if len(start) + len(text) <= _LINE:
            return start + text
        if all(words) and max(map(len, words)) <= _LINE - len(start):
            lines = textwrap.wrap(
                text, _LINE, initial_indent=start, subsequent_indent=" ", break_long_words=False, break_on_hyphens=False
            )
            return "\r\n".join(lines)
    return start + encoded_words(text, len(start))


def write_mailboxes(name: str, boxes: list[Mailbox]) -> str:
    """Returns the field ``name`` with its addresses, one per line, without its line end."""
    lines = [_written(box, 1 if number else len(name) + 2) for number, box in enumerate(boxes)]
    return f"{name}: " + ",\r\n ".join(lines)


def encoded_words(text: str, used: int) -> str:
    """Returns ``text`` in encoded words of whole characters, folded; ``used`` is the length of the line before them.

    It uses the shorter one of B and Q. A word ends after a blank where possible: Python before 3.13 adds a blank
    between two encoded words of a name.
    """
    text = text.encode(errors="replace").decode()  # no encoding supports lone surrogates
    size = len(text.encode())
    quoted = sum(map(_quoted_size, text)) <= 4 * (size + 2) // 3
    words: list[str] = []
    start = 0
    while start < len(text):
        room = min(_WORD, _LINE - (1 if words else used)) - _FRAME
        end = _end(text, start, room, _quoted_size) if quoted else _end(text, start, room // 4 * 3, _byte_size)
        words.append(_quoted(text[start:end]) if quoted else _base64(text[start:end]))
        start = end
    return "\r\n ".join(words)


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and "=?" not in text and text == text.strip()


def _written(box: Mailbox, used: int) -> str:
    if not box.name:
        return box.address
    name = box.name
    if _is_plain(name) and not _ATOMS.fullmatch(name):
        name = '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'
    if not _is_plain(box.name) or used + len(name) > _LINE:
        return f"{encoded_words(box.name, used)}\r\n <{box.address}>"
    fold = "" if used + len(name) + len(box.address) + 3 <= _LINE else "\r\n"
    return f"{name}{fold} <{box.address}>"


def _end(text: str, start: int, room: int, size: Callable[[str], int]) -> int:
    """Returns the end of the word that begins at ``start``: after its last blank, or at its maximal length."""
    blank = 0
    for index in range(start, len(text)):
        room -= size(text[index])
        if room < 0:
            return blank or index
        if text[index] == " ":
            blank = index + 1
    return len(text)


def _quoted_size(char: str) -> int:
    return 1 if char in _AS_IT_IS or char == " " else 3 * len(char.encode())


def _byte_size(char: str) -> int:
    return len(char.encode())


def _quoted(text: str) -> str:
    escaped = ["_" if char == " " else char if char in _AS_IT_IS else _escaped(char) for char in text]
    return f"=?utf-8?q?{''.join(escaped)}?="


def _escaped(char: str) -> str:
    return "".join(f"={byte:02X}" for byte in char.encode())


def _base64(text: str) -> str:
    return f"=?utf-8?b?{base64.b64encode(text.encode()).decode()}?="
