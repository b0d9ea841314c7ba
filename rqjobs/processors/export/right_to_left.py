"""Puts right-to-left text into drawing order, by a subset of Unicode's bidirectional algorithm (UAX 9)."""

from __future__ import annotations

import re
import unicodedata

try:
    import arabic_reshaper
except ImportError:  # the extra `fonts`
    arabic_reshaper = None

_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
_MIRRORED = str.maketrans("()[]{}<>\u00ab\u00bb", ")(][}{><\u00bb\u00ab")


def visual(line: str) -> str:
    """Returns ``line`` in drawing order: letters joined, right-to-left runs reversed.

    The first strong letter gives the direction of the line. Embedding levels, which names and notes do not use, are
    not supported.
    """
    if not _RIGHT_TO_LEFT.search(line):
        return line
    if arabic_reshaper is not None:
        line = arabic_reshaper.reshape(line)
    base = "R" if reads_from_right(line) else "L"
    runs = _runs(line, base)
    drawn = [_turn(run) if direction == "R" else run for direction, run in runs]
    return "".join(reversed(drawn) if base == "R" else drawn)


def reads_from_right(line: str) -> bool:
    """Returns whether the first strong letter of ``line`` belongs to a right-to-left script."""
    if not _RIGHT_TO_LEFT.search(line):
        return False
    return next((_strong(char) for char in line if _strong(char)), "L") == "R"


def _strong(char: str) -> str:
    kind = unicodedata.bidirectional(char)
    return {"L": "L", "R": "R", "AL": "R"}.get(kind, "")


def _runs(line: str, base: str) -> list[tuple[str, str]]:
    """Splits ``line`` into runs of one direction; neutral characters take that of both neighbours, else ``base``."""
    kinds = [_strong(char) or ("N" if unicodedata.bidirectional(char) in ("EN", "AN") else "") for char in line]
    directions: list[str] = []
    for index, kind in enumerate(kinds):
        before = directions[-1] if directions else base
        if kind in ("L", "R"):
            directions.append(kind)
        elif kind == "N":
            directions.append("L" if before == "L" else "R")
        else:
            after = next((k if k != "N" else before for k in kinds[index:] if k), base)
            directions.append(before if before == after else base)
    runs: list[tuple[str, str]] = []
    for char, direction in zip(line, directions, strict=True):
        if runs and runs[-1][0] == direction:
            runs[-1] = (direction, runs[-1][1] + char)
        else:
            runs.append((direction, char))
    return runs


_NUMBER = re.compile(r"\d+(?:[.,:/-]\d+)*")


def _turn(run: str) -> str:
    """Reverses ``run``, except for its numbers, which read from left to right in every script.

    Combining marks stay behind their letter.
    """
    clusters: list[str] = []
    position = 0
    while position < len(run):
        number = _NUMBER.match(run, position)
        end = number.end() if number else position + 1
        while not number and end < len(run) and unicodedata.combining(run[end]):
            end += 1
        clusters.append(run[position:end] if number else run[position:end].translate(_MIRRORED))
        position = end
    return "".join(reversed(clusters))
