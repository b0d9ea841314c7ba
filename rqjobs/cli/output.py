"""How commands print: a table for people, one JSON document for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rqjobs.durations import format_duration

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout instead of a table.")


def console() -> Console:
    """Stdout as rich sees it; piped, a line is as long as it needs to be."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160, highlight=False)


def print_json(document: Any) -> None:
    """One JSON document; times as ISO 8601, durations in seconds."""
    click.echo(json.dumps(document, default=_plain, indent=2, ensure_ascii=False))


def _plain(value: object) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value)


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """A table; cells are shown as they are, markup in them is not obeyed."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2))
    for header in headers:
        table.add_column(
            header, justify="right" if header in right else "left", overflow="fold", no_wrap=header == "id"
        )
    for row in rows:
        table.add_row(*(escape(cell(value)) for value in row))
    console().print(table)


def cell(value: object) -> str:
    """A value as a table shows it: times as ``3m ago``, nothing as ``-``."""
    if value is None or value == "":
        return "-"
    if isinstance(value, datetime):
        return ago(value)
    if isinstance(value, timedelta):
        return format_duration(value)
    return str(value)


def ago(moment: datetime) -> str:
    """``3m ago``, or ``in 2h``."""
    distance = datetime.now(UTC) - (moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    if distance < timedelta():
        return f"in {format_duration(-distance)}"
    return "now" if distance < timedelta(seconds=1) else f"{format_duration(distance)} ago"
