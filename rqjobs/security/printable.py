"""Makes untrusted text printable for terminals and logs: no character of it can control a terminal."""

from __future__ import annotations

import json
from collections.abc import Callable

KEPT = "\n\t"
"""The control characters that text of several lines keeps."""


def printable(text: str, *, keep: str = KEPT) -> str:
    r"""Returns ``text`` with each control, format and bidirectional character as a visible escape, such as ``\x1b``.

    Args:
        text: any text.
        keep: control characters that are not escaped; by default line breaks and tabs.
    """
    if text.isprintable():
        return text
    return _escape(text, keep, lambda char: ascii(char)[1:-1])


def printable_json(text: str) -> str:
    """Returns a JSON document with characters that may control a terminal as JSON escapes.

    Its meaning is the same.
    """
    if text.isprintable():
        return text
    return _escape(text, "\n", lambda char: json.dumps(char)[1:-1])


def _escape(text: str, keep: str, escape: Callable[[str], str]) -> str:
    return "".join(char if char.isprintable() or char in keep else escape(char) for char in text)
