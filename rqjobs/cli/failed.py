"""``rqjobs failed``: the dead letters."""

from __future__ import annotations

import sys
from copy import copy
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from rqjobs.cli.jobs import show as show_job
from rqjobs.cli.output import cell, json_option, print_json, print_table, say, say_over, typed
from rqjobs.cli.params import LANE, InvalidInput
from rqjobs.config.durations import spell
from rqjobs.security.printable import printable

if TYPE_CHECKING:
    from rqjobs.dead_letters import bulk_requeue
    from rqjobs.dead_letters import groups as failure_groups

_SHOWN = 20

_queue_option = click.option("--queue", type=LANE, metavar="Q", help="Only dead letters of this queue.")
_reason_option = click.option("--reason", metavar="TEXT", help="Only those whose last error contains TEXT.")
_ids_argument = click.argument("job_ids", metavar="[ID ...]", nargs=-1)
_all_option = click.option("--all", "everything", is_flag=True, help="All dead letters.")
_group_option = click.option("--group", metavar="GROUP", help="All of one group, by its id in: rqjobs failed groups.")
_dry_option = click.option("--dry-run", is_flag=True, help="Change nothing; show what would be done.")


@click.group()
def failed() -> None:
    """List, explain, requeue and purge dead jobs."""


@failed.command("list")
@_queue_option
@_reason_option
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@json_option
def list_(*, queue: str | None, reason: str | None, limit: int, as_json: bool) -> None:
    """List dead letters, newest first, each with its reason.

    Ordered by queue and priority; --reason searches all kept dead letters.
    """
    from rqjobs.dead_letters import letters as dead_letters

    total = dead_letters.count(queue)
    found = list(islice(dead_letters.dead_letters(queue, reason, scan=None if reason else limit), limit))
    if as_json:
        print_json([asdict(letter) for letter in found])
        return
    if not found:
        say(f"no dead letter of {total:,} has this reason" if reason and total else "no dead letters")
        return
    print_table(
        ("id", "queue", "failed", "attempts", "what", "reason"),
        ((x.job_id, x.queue, x.failed_at, x.attempts, x.label, x.reason) for x in found),
        right=("attempts",),
    )
    if len(found) == limit < total and not reason:
        say(f"... and {total - len(found):,} more: --limit {total}")
    say(f"run again: {typed('failed requeue ID')}    why: {typed('failed show ID')}")
    say(f"by cause:  {typed('failed groups')}")


@failed.command()
@_queue_option
@json_option
def groups(*, queue: str | None, as_json: bool) -> None:
    """Count dead letters by queue, error and destination."""
    from rqjobs.dead_letters import groups as failure_groups

    found = failure_groups.look(queue)
    while found.grouped < found.total and (again := failure_groups.look(queue)).grouped > found.grouped:
        found = again
    if as_json:
        print_json([_document(group) for group in found.groups])
        return
    if not found.groups:
        say("no dead letters")
        return
    print_table(
        ("group", "queue", "jobs", "newest", "destination", "error"),
        (
            (x.fingerprint.id, x.fingerprint.queue, x.count, x.newest, x.destination, x.fingerprint.error)
            for x in found.groups
        ),
        right=("jobs",),
    )
    if found.more:
        say(f"... and {found.more:,} smaller groups: --queue Q shows those of one queue")
    say(f"run a group again: {typed('failed requeue --group GROUP --canary --rate 20')}")


def _document(group: failure_groups.FailureGroup) -> dict[str, Any]:
    return {
        "group": group.fingerprint.id,
        **group.fingerprint._asdict(),
        "destinations": group.destinations,
        "count": group.count,
        "newest": group.newest,
        "examples": [example.job_id for example in group.examples],
    }


failed.add_command(copy(show_job), "show")  # a copy, because it has other examples


@failed.command()
@_ids_argument
@_queue_option
@_reason_option
@_all_option
@_group_option
@click.option("--canary", is_flag=True, help="With --group: requeue one job first, the others only if it is done.")
@click.option(
    "--rate", type=click.FloatRange(0.1, 10_000), default=20.0, show_default=True, help="With --group: jobs per second."
)
@_dry_option
@json_option
def requeue(
    job_ids: tuple[str, ...],
    *,
    queue: str | None,
    reason: str | None,
    everything: bool,
    group: str | None,
    canary: bool,
    rate: float,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Run dead jobs again, with all their attempts.

    Select jobs by ID, by --queue and --reason, by --group, or --all.
    """
    from rqjobs.dead_letters import letters as dead_letters

    chosen = _choose(job_ids, queue, reason, group, everything=everything, dry_run=dry_run)
    if group is not None:
        mode: bulk_requeue.Mode = "dry-run" if dry_run else "requeue"
        return _bulk_requeue(group, mode, canary=canary, rate=rate, as_json=as_json)
    done = chosen if dry_run else dead_letters.requeue(chosen)
    _tell("requeued", done, dry_run=dry_run, as_json=as_json)
    return 0


@failed.command()
@_ids_argument
@_queue_option
@_reason_option
@_all_option
@_group_option
@_dry_option
@click.option("--yes", is_flag=True, help="Delete without a question.")
@json_option
def purge(
    job_ids: tuple[str, ...],
    *,
    queue: str | None,
    reason: str | None,
    everything: bool,
    group: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Delete dead jobs.

    Select jobs by ID, by --queue and --reason, by --group, or --all. In a terminal it asks to confirm, unless they are
    selected by ID or --yes is given.
    """
    from rqjobs.dead_letters import letters as dead_letters

    chosen = _choose(job_ids, queue, reason, group, everything=everything, dry_run=dry_run)
    if not (dry_run or yes or job_ids) and sys.stdin.isatty():  # not in a script, which cannot answer
        which = f"every dead job of group {group}" if group is not None else f"{len(chosen):,} dead jobs"
        click.confirm(printable(f"Delete {which} for good?", keep=""), abort=True, err=True)
    if group is not None:
        return _bulk_requeue(group, "dry-run" if dry_run else "purge", canary=False, rate=1, as_json=as_json)
    done = chosen if dry_run else dead_letters.purge(chosen)
    _tell("purged", done, dry_run=dry_run, as_json=as_json)
    return 0


def _choose(
    ids: tuple[str, ...], queue: str | None, reason: str | None, group: str | None, *, everything: bool, dry_run: bool
) -> list[str]:
    """Returns the ids of the jobs that the options select; none for a group, whose bulk requeue finds them."""
    from rqjobs.dead_letters import letters as dead_letters

    ways = [bool(ids), group is not None, bool(queue or reason), everything]
    if sum(ways) > 1:
        raise InvalidInput("name the jobs in one way: ID ..., --group GROUP, --queue and --reason, or --all")
    if group is not None:
        return []
    if ids:
        return [dead_letters.dead_letter(job_id).job_id for job_id in ids]
    if not (everything or queue or reason):
        raise InvalidInput(
            "name the jobs: ID ..., --queue Q, --reason TEXT, --group GROUP or --all; --dry-run shows how many they are"
        )
    return dead_letters.dead_ids(queue, reason, exact=not dry_run)


def _bulk_requeue(group: str, mode: bulk_requeue.Mode, *, canary: bool, rate: float, as_json: bool) -> int:
    """Runs a bulk requeue of a whole group in this process; the dashboard shows it as well."""
    from rqjobs.broker.connection import get_connection
    from rqjobs.dead_letters import bulk_requeue

    client = get_connection()
    started = bulk_requeue.start(group, f"group {group}", mode, canary=canary, rate=rate, connection=client)
    live = sys.stderr.isatty() and not as_json

    def seen(now: bulk_requeue.BulkRequeue) -> None:
        if live:
            left = f", {spell(now.left)} left" if now.left else ""
            say_over(f"{now.state}: {now.done:,} of {now.total:,}{left}")

    ended = bulk_requeue.run(started, client, seen)
    if live:
        say("", err=True)
    if not ended.total:
        raise InvalidInput(f"no dead job belongs to group {group!r}; see: {typed('failed groups')}")
    if as_json:
        print_json(asdict(ended))
    else:
        say(ended.message)
    return 0 if ended.state == "done" else 1


def _tell(what: str, job_ids: list[str], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json({what: job_ids, "dry_run": dry_run})
        return
    for job_id in job_ids[:_SHOWN]:
        say(cell(job_id))
    if len(job_ids) > _SHOWN:
        say(f"... and {len(job_ids) - _SHOWN:,} more")
    say(f"{'would be ' if dry_run else ''}{what}: {len(job_ids):,}")
