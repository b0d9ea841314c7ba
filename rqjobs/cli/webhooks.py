"""``rqjobs webhooks``: endpoints and the delivery log."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rqjobs.cli import webhook_endpoints
from rqjobs.cli.output import cell, json_option, print_json, print_table, say, typed
from rqjobs.config.durations import format_duration, parse_duration
from rqjobs.errors import RQJobsError
from rqjobs.security.masking import mask, mask_text, without_path

if TYPE_CHECKING:
    from rqjobs.database.webhook_deliveries import Delivery

SHOWN = 20
"""The most deliveries that a dry run of a replay lists."""

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


class _Moment(click.ParamType[datetime]):
    """A time: ``2h`` (ago), or an ISO 8601 date or time, in UTC unless it has another offset."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Returns the time of the text."""
        if isinstance(value, datetime):
            return value
        try:
            return datetime.now(UTC) - parse_duration(value)
        except ValueError:
            pass
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time; write 2h (ago), 2026-11-23 or 2026-11-23T22:00", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _filter_options(function: FunctionT) -> FunctionT:
    for option in (
        click.option("--until", type=_Moment(), help="Before this time."),
        click.option("--since", type=_Moment(), help="From this time on: 2h (ago), 2026-11-23 or 2026-11-23T22:00."),
        click.option(
            "--outcome", type=click.Choice(["done", "retry", "dead"]), help="Only with an attempt that ended so."
        ),
        click.option("--event", metavar="EVENT", help="Only of this event."),
        click.option("--endpoint", metavar="NAME|URL", help="Only to this endpoint."),
    ):
        function = option(function)
    return function


class _Group(click.Group):
    """Shows an error of the database as an error of one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, RQJobsError):
            raise
        except ValueError as error:
            raise RQJobsError(str(error)) from error
        except Exception as error:
            from sqlalchemy.exc import SQLAlchemyError

            if not isinstance(error, SQLAlchemyError):
                raise
            reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
            raise RQJobsError(
                f"the database cannot be used: {reason}. Check DATABASE_URL: {typed('doctor')}"
            ) from error


@click.group(cls=_Group)
def webhooks() -> None:
    """Manage endpoints; show and replay deliveries."""


for _command in webhook_endpoints.COMMANDS:
    webhooks.add_command(_command)


@webhooks.command()
@_filter_options
@click.option("--limit", type=click.IntRange(1, 2**31 - 1), default=50, show_default=True)
@json_option
def deliveries(*, limit: int, as_json: bool, **wanted: Any) -> None:
    """List attempts to deliver, newest first.

    --event and --outcome done search the newest 100,000.
    """
    from rqjobs.database import get_engine
    from rqjobs.database.webhook_deliveries import LOOKED_THROUGH, Filter, find

    asked = Filter(**wanted)
    rows = find(get_engine(), asked, limit)
    if as_json:
        print_json([_document(row) for row in rows])
        return
    if not rows:
        say(f"no deliveries{f' among the newest {LOOKED_THROUGH:,}' if asked.scans else ''}")
        return
    _list(rows)
    say(f"one in full: {typed('webhooks show ID')}    send again: {typed('webhooks replay ID')}")


@webhooks.command()
@click.argument("job_id", metavar="ID")
@json_option
def show(*, job_id: str, as_json: bool) -> None:
    """Show one delivery: its request, and all its attempts."""
    from rqjobs.database import get_engine
    from rqjobs.database.webhook_deliveries import Filter, find

    rows = sorted(find(get_engine(), Filter(job_id=job_id), 1000), key=lambda row: row.at_ms)
    if not rows:
        raise _not_logged(job_id)
    job = _job(rows)
    if as_json:
        print_json({"id": job_id, "job": job, "attempts": [_document(row) for row in rows]})
        return
    say("  ".join(map(cell, (job_id, rows[0].event, f"to {mask_text(rows[0].endpoint)}"))))
    if job is not None:
        say(json.dumps(job, indent=2, ensure_ascii=False))
    print_table(
        ("attempt", "at", "status", "took", "outcome", "error", "response"),
        (
            (
                x.attempt,
                x.at.strftime("%Y-%m-%d %H:%M:%S"),
                x.status,
                _took(x),
                x.outcome,
                *map(mask, (x.error, x.response)),
            )
            for x in rows
        ),
        right=("attempt", "status", "took"),
    )


@webhooks.command()
@click.argument("job_ids", metavar="[ID ...]", nargs=-1)
@_filter_options
@click.option("--all", "everything", is_flag=True, help="All deliveries in the log that failed.")
@click.option("--delivered-too", is_flag=True, help="Also deliveries that succeeded.")
@click.option("--pace", type=float, default=10, show_default=True, help="Deliveries per second.")
@click.option("--dry-run", is_flag=True, help="Send nothing; list the deliveries.")
@json_option
def replay(
    *,
    job_ids: tuple[str, ...],
    everything: bool,
    delivered_too: bool,
    pace: float,
    dry_run: bool,
    as_json: bool,
    **wanted: Any,
) -> None:
    """Send deliveries again, with their own webhook-ids.

    Select them by ID, or all that match the filters and failed.
    """
    from rqjobs import webhooks as api
    from rqjobs.database import get_engine
    from rqjobs.database.webhook_deliveries import Filter, latest

    given = {name: value for name, value in wanted.items() if value is not None}
    if bool(job_ids) == bool(given or everything):
        raise click.UsageError("name them: IDs, or --endpoint, --event, --outcome, --since, --until, or --all")
    filters = [Filter(job_id=job_id) for job_id in job_ids] or [Filter(**given)]
    delivered_too = delivered_too or bool(job_ids) or wanted["outcome"] == "done"
    total = api.Replay()
    for each in filters:
        # A delivery selected by its id is sent again even if it succeeded.
        done = api.replay(each, pace=pace, delivered_too=delivered_too, dry_run=dry_run)
        if job_ids and not (done.enqueued or done.under_way or done.lost):
            raise _not_logged(each.job_id)
        total.enqueued += done.enqueued
        total.under_way += done.under_way
        total.lost += done.lost
    if as_json:
        print_json(asdict(total) | {"dry_run": dry_run})
        return
    if dry_run and total.enqueued:
        _list(latest(get_engine(), total.enqueued[:SHOWN]))
        if (more := len(total.enqueued) - SHOWN) > 0:
            say(f"... and {more:,} more; every id: --json")
    takes = format_duration(timedelta(seconds=len(total.enqueued) / pace))
    doing = "would send" if dry_run else "sending"
    say(f"{doing} {len(total.enqueued)} again, {pace:g} a second ({takes})")
    for what, ids in (("still under way", total.under_way), ("no longer in the log", total.lost)):
        if ids:
            say(f"{len(ids)} {what}: {' '.join(ids[:10])}{' ...' if len(ids) > 10 else ''}")  # noqa: PLR2004


def _not_logged(job_id: str | None) -> RQJobsError:
    return RQJobsError(
        f"no delivery {job_id!r} in the log: check the id and DATABASE_URL; deliveries are kept for WEBHOOK_LOG_KEEP"
    )


def _list(rows: Sequence[Delivery]) -> None:
    print_table(
        ("id", "when", "endpoint", "event", "attempt", "outcome", "took", "error"),
        (
            (x.job_id, x.at, without_path(x.endpoint), x.event, x.attempt, _outcome(x), _took(x), mask(x.error))
            for x in rows
        ),
        right=("attempt", "took"),
    )


def _job(rows: list[Delivery]) -> dict[str, Any] | None:
    """Returns the job that was sent, with its headers and secrets masked."""
    stored = next((row.job for row in reversed(rows) if row.job is not None), None)
    job: dict[str, Any] | None = None if stored is None else mask(json.loads(stored))
    return job


def _document(row: Delivery) -> dict[str, Any]:
    fields = row._asdict()
    fields.pop("job")
    fields["at"] = row.at
    fields.pop("at_ms")
    fields |= {name: mask(fields[name]) for name in ("endpoint", "error", "response")}
    return fields


def _outcome(row: Delivery) -> str:
    return row.outcome if row.status is None else f"{row.status} {row.outcome}"


def _took(row: Delivery) -> timedelta:
    return timedelta(milliseconds=row.duration_ms)
