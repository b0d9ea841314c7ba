"""``rqjobs failed``: the dead letters."""

from __future__ import annotations

from dataclasses import asdict

import click

from rqjobs import dead_letters
from rqjobs.cli.enqueue import InvalidInput
from rqjobs.cli.jobs import show as show_job
from rqjobs.cli.output import json_option, print_json, print_table
from rqjobs.dead_letters import DeadLetter

_queue_option = click.option("--queue", metavar="Q", help="Only of this queue.")
_reason_option = click.option("--reason", metavar="TEXT", help="Only those whose last error contains TEXT.")
_ids_argument = click.argument("job_ids", metavar="[ID ...]", nargs=-1)
_all_option = click.option("--all", "everything", is_flag=True, help="All dead letters.")
_dry_option = click.option("--dry-run", is_flag=True, help="Only say what would be done.")


@click.group()
def failed() -> None:
    """List, explain, requeue and purge the jobs that died."""


@failed.command("list")
@_queue_option
@_reason_option
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@json_option
def list_(*, queue: str | None, reason: str | None, limit: int, as_json: bool) -> None:
    """List dead letters, newest first, each with its reason."""
    found = list(dead_letters.dead_letters(queue, reason))
    if as_json:
        print_json([asdict(letter) for letter in found[:limit]])
        return
    if not found:
        click.echo("no dead letters")
        return
    print_table(
        ("id", "queue", "what", "failed", "attempts", "reason"),
        ((x.job_id, x.queue, x.label, x.failed_at, x.attempts, x.reason) for x in found[:limit]),
        right=("attempts",),
    )
    if len(found) > limit:
        click.echo(f"... and {len(found) - limit} more: --limit {len(found)}")
    click.echo("run again: rqjobs failed requeue ID    why: rqjobs failed show ID")


failed.add_command(show_job, "show")


@failed.command()
@_ids_argument
@_queue_option
@_reason_option
@_all_option
@_dry_option
@json_option
def requeue(
    job_ids: tuple[str, ...], *, queue: str | None, reason: str | None, everything: bool, dry_run: bool, as_json: bool
) -> None:
    """Run dead jobs again, with all their attempts: some by ID, or all that fit --queue and --reason."""
    chosen = _choose(job_ids, queue, reason, everything=everything)
    done = [x.job_id for x in chosen] if dry_run else dead_letters.requeue(x.job_id for x in chosen)
    _tell("requeued", done, dry_run=dry_run, as_json=as_json)


@failed.command()
@_ids_argument
@_queue_option
@_reason_option
@_all_option
@_dry_option
@json_option
def purge(
    job_ids: tuple[str, ...], *, queue: str | None, reason: str | None, everything: bool, dry_run: bool, as_json: bool
) -> None:
    """Delete dead jobs for good: some by ID, or all that fit --queue and --reason."""
    chosen = _choose(job_ids, queue, reason, everything=everything)
    done = [x.job_id for x in chosen] if dry_run else dead_letters.purge(x.job_id for x in chosen)
    _tell("purged", done, dry_run=dry_run, as_json=as_json)


def _choose(ids: tuple[str, ...], queue: str | None, reason: str | None, *, everything: bool) -> list[DeadLetter]:
    """What the words of a command mean; nothing by accident."""
    if ids:
        return [dead_letters.dead_letter(job_id) for job_id in ids]
    if not (everything or queue or reason):
        raise InvalidInput("say which: ID ..., --queue Q, --reason TEXT or --all; --dry-run shows what it would be")
    return list(dead_letters.dead_letters(queue, reason))


def _tell(what: str, job_ids: list[str], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json({what: job_ids, "dry_run": dry_run})
        return
    for job_id in job_ids:
        click.echo(job_id)
    click.echo(f"{'would be ' if dry_run else ''}{what}: {len(job_ids)}")
