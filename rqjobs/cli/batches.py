"""``rqjobs batches``: batches and chains."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from rqjobs.cli.output import bold, json_option, print_json, print_table, say

_SHOWN = 20  # the most ids of dead members that are printed


@click.group()
def batches() -> None:
    """Batches and chains: list, show, cancel, requeue dead members."""


@batches.command("list")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="How many at most.")
@json_option
def list_command(*, limit: int, as_json: bool) -> None:
    """List the batches, those that are not done first."""
    from rqjobs.batches.records import document, list_batches

    found = list_batches(limit)
    if as_json:
        print_json({"batches": [document(each) for each in found]})
        return
    if not found:
        say("no batches")
        return
    counts = ("waiting", "running", "done", "dead", "total")
    rows = [
        (each.id, each.name or "-", each.state, *(getattr(each.progress, name) for name in counts), each.created_at)
        for each in found
    ]
    print_table(("id", "name", "state", *counts, "created"), rows, right=counts)


@batches.command()
@click.argument("batch_id", metavar="ID")
@json_option
def show(batch_id: str, *, as_json: bool) -> None:
    """Show a batch, and its dead members."""
    from rqjobs.batches import get_batch
    from rqjobs.batches.records import document

    batch = get_batch(batch_id)
    found, dead = batch.read(), sorted(batch.dead_ids())
    if as_json:
        print_json({**document(found), "dead_ids": dead})
        return
    say(f"{bold(found.name or found.id)}  {found.state}, {'chain' if found.chain else 'batch'} {found.id}")
    progress = found.progress
    say(f"{progress.done} of {progress.total} done, {progress.waiting} waiting, {progress.running} running, "
        f"{progress.dead} dead")  # fmt: skip
    say(f"created {_time(found.created_at)}, ended {_time(found.ended_at)}")
    for title, ids in (("tags", [f"{name}={value}" for name, value in found.tags.items()]), ("then", found.then),
                       ("on dead", found.on_dead), ("dead members", dead[:_SHOWN])):  # fmt: skip
        if ids:
            say(f"{title}: {', '.join(ids)}{' ...' if len(dead) > _SHOWN and title == 'dead members' else ''}")


@batches.command()
@click.argument("batch_id", metavar="ID")
@json_option
def cancel(batch_id: str, *, as_json: bool) -> None:
    """Delete the waiting members of a batch, and the batch.

    Running members continue; dead ones stay in the dead letters.
    """
    from rqjobs.batches import get_batch

    removed = get_batch(batch_id).cancel()
    if as_json:
        print_json({"id": batch_id, "removed": removed})
    else:
        say(f"cancelled; waiting jobs removed: {removed}")


@batches.command("requeue-dead")
@click.argument("batch_id", metavar="ID")
@json_option
def requeue_dead(batch_id: str, *, as_json: bool) -> None:
    """Put the dead members of a batch back into their queues."""
    from rqjobs.batches import get_batch

    batch = get_batch(batch_id)
    requeued = batch.requeue_dead()
    left = batch.read().progress.dead
    if as_json:
        print_json({"id": batch_id, "requeued": requeued, "still_dead": left})
        return
    say(f"requeued: {len(requeued)}")
    if left:
        say(f"no longer kept, or dead again: {left}")


def _time(moment: datetime | None) -> str:
    return "-" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
