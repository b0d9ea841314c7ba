"""``rqjobs exports``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import click

from rqjobs.cli.output import json_option, print_json, print_table, say, typed
from rqjobs.config.logs import set_up_logs
from rqjobs.errors import RQJobsError

if TYPE_CHECKING:
    from rqjobs.processors.export import Export


class ExportNotFound(RQJobsError, LookupError):
    """No export with this id was published, or its file is deleted."""


@click.group()
def exports() -> None:
    """List exports, make links to them, delete expired files."""


@exports.command("list")
@click.option("--user", metavar="ID", help="Only exports of this user.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@json_option
def list_(*, user: str | None, limit: int, as_json: bool) -> None:
    """List published exports, newest first."""
    from rqjobs.processors.export import recent

    found = recent(user_id=user, limit=limit)
    if as_json:
        print_json([_document(export) for export in found])
        return
    if not found:
        say("no exports")
        return
    print_table(
        ("id", "user", "what", "rows", "size", "made", "file"),
        ((x.id, x.user_id, f"{x.data_type} as {x.export_type}", f"{x.rows:,}", size(x.bytes), x.created_at, _state(x))
         for x in found),
        right=("rows", "size"),
    )  # fmt: skip


@exports.command()
@click.argument("export_id", metavar="ID")
@json_option
def link(export_id: str, *, as_json: bool) -> None:
    """Print a new download link to export ID, for its owner."""
    from rqjobs.processors.export import find, make_link

    export = find(export_id)
    if export is None:
        raise ExportNotFound(f"no export {export_id!r}; see: {typed('exports list')}")
    if not export.available:
        raise ExportNotFound(f"the file of export {export_id} is deleted; enqueue the export again")
    url, until = make_link(export)
    if as_json:
        file = f"{export.location.rstrip('/')}/{export.file_name}"
        print_json({"export_id": export.id, "url": url, "url_expires_at": until, "file": file})
        return
    say(url)
    if url.startswith("/"):
        say("set EXPORT_LINK_URL to where the app serves rqjobs.web.downloads to get a whole link", err=True)


@exports.command("purge")
@click.option("--dry-run", is_flag=True, help="Change nothing; show what would be deleted.")
@json_option
def purge_(*, dry_run: bool, as_json: bool) -> None:
    """Delete the files of expired exports.

    Their rows stay as a record of who exported what. Exit 1 if a file could not be deleted.
    """
    from rqjobs.processors.export import purge

    set_up_logs(level=logging.WARNING)  # the log names each file that could not be deleted, and why
    due = purge(dry_run=True)
    done = due if dry_run else purge()
    if as_json:
        print_json({"purged": [export.id for export in done], "dry_run": dry_run})
    else:
        for export in done:
            say(f"{export.id}  {export.data_type} of {export.user_id}, {export.rows:,} rows")
        say(f"{'would delete' if dry_run else 'deleted'} {len(done)} file{'s' if len(done) != 1 else ''}")
    if len(done) < len(due):
        raise SystemExit(1)


def size(count: float) -> str:
    """Returns a number of bytes for people: ``1.4 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":  # noqa: PLR2004
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def _state(export: Export) -> str:
    if export.available:
        days = (export.expires_at - export.created_at).days
        return f"kept until {export.expires_at:%Y-%m-%d %H:%M}" if days else f"kept until {export.expires_at:%H:%M}"
    return "deleted"


def _document(export: Export) -> dict[str, Any]:
    return vars(export) | {"available": export.available}
