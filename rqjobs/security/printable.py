"""Text from outside, made printable before it reaches a terminal or a log: no character of it controls a terminal."""

from __future__ import annotations

import json
from collections.abc import Callable

KEPT = "\n\t"
"""Control characters that text of several lines keeps."""


def printable(text: str, *, keep: str = KEPT) -> str:
    r"""``text`` with each control, format and bidirectional character as a visible escape, such as ``\x1b``.

    Args:
        text: any text.
        keep: control characters that stay as they are; line breaks and tabs by default.
    """
    if text.isprintable():
        return text
    return _escape(text, keep, lambda char: ascii(char)[1:-1])


def printable_json(text: str) -> str:
    """A JSON document with each character that a terminal could obey as JSON's own escape: the same document."""
    if text.isprintable():
        return text
    return _escape(text, "\n", lambda char: json.dumps(char)[1:-1])


def _escape(text: str, keep: str, escape: Callable[[str], str]) -> str:
    return "".join(char if char.isprintable() or char in keep else escape(char) for char in text)
