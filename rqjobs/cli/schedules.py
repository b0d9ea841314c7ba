"""``rqjobs schedules``: recurring jobs."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from rqjobs.cli.output import bold, cell, json_option, print_json, print_table, say
from rqjobs.cli.params import InvalidInput, read_json

if TYPE_CHECKING:
    from rqjobs.schedules.records import CatchUp, Overlap, Schedule

_TIME = click.DateTime(["%Y-%m-%dT%H:%M%z", "%Y-%m-%dT%H:%M:%S%z"])


@click.group()
def schedules() -> None:
    """Recurring jobs: list, add, pause, resume, run now, remove.

    Workers enqueue their jobs. Schedules declared in the code (source: code) are updated when a worker starts.
    """


@schedules.command("list")
@json_option
def list_command(*, as_json: bool) -> None:
    """List the schedules, by their next tick."""
    from rqjobs.schedules import list_schedules

    found = list_schedules()
    if as_json:
        print_json({"schedules": [_document(each) for each in found]})
        return
    if not found:
        say("no schedules")
        return
    rows = [
        (each.name, each.queue, each.when, each.source, each.state, each.next, _last(each))
        for each in found
    ]  # fmt: skip
    print_table(("name", "queue", "when", "source", "state", "next", "last"), rows)


@schedules.command()
@click.argument("name")
@json_option
def show(name: str, *, as_json: bool) -> None:
    """Show a schedule and its last 20 ticks."""
    from rqjobs.schedules import get_schedule

    found = get_schedule(name)
    if as_json:
        print_json(_document(found))
        return
    say(f"{bold(name)}  {found.state}, {found.when}, source {found.source}")
    say(f"queue {found.lane}, catch-up {found.catch_up}, overlap {found.overlap}, jitter {cell(found.jitter)}")
    say(f"next tick {_time(found.next)}")
    if found.ticks:
        say("")
        rows = [
            (_time(tick.at), tick.late, tick.job_id, "by hand" if tick.manual else tick.skipped) for tick in found.ticks
        ]
        print_table(("tick", "late by", "job", "note"), rows, right=("late by",))


@schedules.command()
@click.argument("name")
@click.argument("kind")
@click.argument("job", metavar="(JSON | @FILE | -)")
@click.option("--cron", metavar="EXPRESSION", help='Minute, hour, day, month, weekday: "0 3 * * *"; or @daily.')
@click.option("--every", metavar="5m", help="An interval instead of --cron.")
@click.option("--timezone", metavar="ZONE", default="UTC", show_default=True, help="The IANA zone of --cron.")
@click.option("--starts", type=_TIME, metavar="TIME", help="No tick before this time: 2027-01-31T09:00+01:00.")
@click.option("--ends", type=_TIME, metavar="TIME", help="No tick after this time.")
@click.option(
    "--catch-up", type=click.Choice(["last", "all", "none"]), default="last", show_default=True,
    help="Which ticks to run that were missed while no worker ran.",
)  # fmt: skip
@click.option(
    "--overlap", type=click.Choice(["queue", "skip"]), default="queue", show_default=True,
    help="What to do with a tick while the job of an earlier one has not ended.",
)  # fmt: skip
@click.option("--jitter", metavar="30s", help="The longest random delay of each job.")
@click.option("--priority", type=click.Choice(["high", "normal", "low"]), default="normal", show_default=True)
@click.option("--attempts", type=int, help="The most runs of each job.")
@click.option("--backoff", metavar="exponential:2s|fixed:10s", help="The wait before each retry.")
@json_option
def add(
    name: str, kind: str, job: str, *, cron: str | None, every: str | None, timezone: str, starts: datetime | None,
    ends: datetime | None, catch_up: CatchUp, overlap: Overlap, jitter: str | None, priority: str,
    attempts: int | None, backoff: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Add a schedule, or replace the one with this name.

    KIND: webhook, manychat-sync, email, qr-analytics, data-export, or the name of your own queue.
    """
    from rqjobs.policies import get_policy, policies
    from rqjobs.schedules import add as add_schedule

    kinds = [policy.kind for policy in policies()]
    if kind not in kinds:
        raise InvalidInput(f"unknown kind {kind!r}; the kinds are {', '.join(kinds)}")
    found = add_schedule(
        name, get_policy(kind).job_type.parse(read_json(job)), cron=cron, every=every, timezone=timezone, starts=starts,
        ends=ends, catch_up=catch_up, overlap=overlap, jitter=jitter, priority=priority, attempts=attempts,
        backoff=backoff,
    )  # fmt: skip
    _said(found, f"{name}: next tick {_time(found.next)}", as_json=as_json)


@schedules.command()
@click.argument("name")
@json_option
def pause(name: str, *, as_json: bool) -> None:
    """Pause a schedule: it has no ticks until it is resumed."""
    from rqjobs import schedules as api

    api.pause(name)
    _said(api.get_schedule(name), f"{name} is paused", as_json=as_json)


@schedules.command()
@click.argument("name")
@json_option
def resume(name: str, *, as_json: bool) -> None:
    """End the pause of a schedule.

    Ticks missed during the pause are not run.
    """
    from rqjobs import schedules as api

    api.resume(name)
    found = api.get_schedule(name)
    _said(found, f"{name}: next tick {_time(found.next)}", as_json=as_json)


@schedules.command("run-now")
@click.argument("name")
@json_option
def run_now(name: str, *, as_json: bool) -> None:
    """Enqueue a schedule's job now, in addition to its ticks."""
    from rqjobs import schedules as api

    job_id = api.run_now(name)
    if as_json:
        print_json({"name": name, "job_id": job_id})
    else:
        say(job_id)


@schedules.command()
@click.argument("name")
@json_option
def remove(name: str, *, as_json: bool) -> None:
    """Remove a schedule; the jobs that it has enqueued stay."""
    from rqjobs import schedules as api

    api.remove(name)
    if as_json:
        print_json({"name": name, "removed": True})
    else:
        say(f"removed {name}")


def _said(schedule: Schedule, text: str, *, as_json: bool) -> None:
    if as_json:
        print_json(_document(schedule))
    else:
        say(text)


def _document(schedule: Schedule) -> dict[str, Any]:
    document = asdict(schedule)
    del document["version"]
    return document


def _time(moment: datetime | None) -> str:
    return "-" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _last(schedule: Schedule) -> str:
    if not schedule.ticks:
        return "-"
    tick = schedule.ticks[0]
    return f"{cell(tick.at)}{', skipped' if tick.skipped else ''}"
