"""The output of commands: a table for people, a JSON document for programs.

:func:`say` is the only function that writes to a terminal. It makes untrusted text (ids, errors, events, names)
printable, so that no command can forget that.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from rqjobs.config.durations import spell
from rqjobs.security.printable import KEPT, printable, printable_json

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout instead of a table.")

_GAP = "  "
_ROOM = 30  # the least width of the last column to wrap it beside the others
_INDENT = "    "

# Styles are noncharacters of Unicode until say() translates them to the terminal's escapes.
_END, _BOLD = "\ufdd0", "\ufdd1"
_COLOURS = {"red": "\ufdd2", "green": "\ufdd3", "yellow": "\ufdd4"}
_ESCAPES = {ord(_END): "\x1b[0m", ord(_BOLD): "\x1b[1m", ord("\ufdd2"): "\x1b[31m", ord("\ufdd3"): "\x1b[32m",
            ord("\ufdd4"): "\x1b[33m"}  # fmt: skip
_KEEP = KEPT + "".join(map(chr, _ESCAPES))


def say(text: str = "", *, err: bool = False) -> None:
    """Prints ``text`` and a line break, on stderr with ``err``. Characters that control a terminal are escaped."""
    click.echo(_shown(text), err=err)


def say_over(text: str) -> None:
    """Replaces the current line of stderr, which is a terminal, by ``text``: for progress.

    Empty text clears the line.
    """
    click.echo(f"\r\x1b[K{_shown(text)}", err=True, nl=False)


def _shown(text: str) -> str:
    return printable(text, keep=_KEEP).translate(_ESCAPES)


def typed(command: str) -> str:
    """Returns ``command`` for users to type: after ``rqjobs``, ``flask rqjobs`` or ``python manage.py rqjobs``."""
    return f"{click.get_current_context().find_root().info_name} {command}"


def adapted(text: str) -> str:
    """Returns ``text`` with the commands in it as users have to type them; see :func:`typed`."""
    program = click.get_current_context().find_root().info_name
    return text if program == "rqjobs" else re.sub(r"(?<![\w/.-])rqjobs (?=[a-z]+(?: |$))", f"{program} ", text)


def print_json(document: Any) -> None:
    """Prints a JSON document; times are ISO 8601, durations are in seconds."""
    click.echo(printable_json(json.dumps(document, default=_plain, indent=2, ensure_ascii=False)))


def _plain(value: object) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value)


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Prints a table. Cells that do not fit into the terminal are printed below their row; words are not broken.

    In a pipe every row is one line. The columns named in ``right`` are aligned to the right.
    """
    screen = shutil.get_terminal_size().columns if sys.stdout.isatty() else 1 << 20
    head, *body = lay_out(headers, list(rows), right, screen)
    say("\n".join([*map(bold, head), *(line for lines in body for line in lines)]))


def lay_out(
    headers: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[str], screen: int
) -> list[list[str]]:
    """Returns the lines of the headers and of each row, for a terminal of ``screen`` columns."""
    cells = [list(headers), *([cell(value) for value in row] for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    beside = len(widths)
    while beside > 1 and (over := sum(widths[:beside]) + len(_GAP) * (beside - 1) - screen) > 0:
        room = widths[-1] - over
        if beside == len(widths) and room >= max(_ROOM, *(_width(word) for row in cells for word in row[-1].split())):
            widths[-1] = room  # wrapped in the remaining width
            break
        beside -= 1
    margin = " " * (sum(widths[: beside - 1]) + len(_GAP) * (beside - 1))
    found = []
    for number, row in enumerate(cells):
        first, *more = _wrap(row[beside - 1], widths[beside - 1])
        facts = zip([*row[: beside - 1], first], widths, headers, strict=False)
        below = [
            # A number or a time is printed with the name of its column.
            f"{headers[i]} {row[i]}" if number and not isinstance(rows[number - 1][i], str) else row[i]
            for i in range(beside, len(row))
            if not number or rows[number - 1][i] not in (None, "")
        ]
        found.append(
            [
                _GAP.join(_pad(text, width, right=header in right) for text, width, header in facts).rstrip(),
                *(margin + line for line in more),
                *(_INDENT + line for line in _wrap(" · ".join(below), screen - len(_INDENT)) if below),
            ]
        )
    return found


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, 1), break_long_words=False, break_on_hyphens=False) or [""]


def _pad(text: str, width: int, *, right: bool) -> str:
    blanks = " " * (width - _width(text))
    return blanks + text if right else text + blanks


def _width(text: str) -> int:
    """Returns the width of ``text`` in a terminal: East Asian characters have two columns."""
    return len(text) if text.isascii() else sum(1 + (unicodedata.east_asian_width(char) in "WF") for char in text)


def cell(value: object) -> str:
    """Returns a value as one line: times as ``3m ago``, empty values as ``-``."""
    if value is None or value == "":
        return "-"
    if isinstance(value, datetime):
        return ago(value)
    if isinstance(value, timedelta):
        return spell(value)
    return f"{value:,}" if type(value) is int else printable(" ".join(str(value).split()))


def ago(moment: datetime) -> str:
    """Returns the time as ``3m 5s ago``, or ``in 2h``."""
    distance = datetime.now(UTC) - (moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    if abs(distance) < timedelta(seconds=1):
        return "now"
    return f"in {spell(-distance)}" if distance < timedelta() else f"{spell(distance)} ago"


def bold(text: str) -> str:
    """Returns ``text`` in bold, for a terminal."""
    return f"{_BOLD}{text}{_END}"


def coloured(text: str, colour: str, *, strong: bool = False) -> str:
    """Returns ``text`` in ``red``, ``yellow`` or ``green``, and bold if it is ``strong``, for a terminal."""
    return f"{_COLOURS[colour]}{_BOLD if strong else ''}{text}{_END}"
