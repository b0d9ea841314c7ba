"""``rqjobs webhooks``: endpoints and the delivery log."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click
from sqlalchemy.exc import SQLAlchemyError

from rqjobs import webhooks as api
from rqjobs.cli.output import json_option, print_json, print_table
from rqjobs.database import get_engine
from rqjobs.database import webhook_deliveries as log
from rqjobs.database import webhook_endpoints as table
from rqjobs.database.webhook_deliveries import Delivery, Filter
from rqjobs.durations import format_duration, parse_duration
from rqjobs.errors import JobNotFound, RQJobsError

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


class _Moment(click.ParamType[datetime]):
    """``2h`` (ago), or an ISO 8601 date or time, UTC unless it says otherwise."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """The moment meant."""
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
        click.option("--event", metavar="EVENT", help="Only of this event."),
        click.option("--endpoint", metavar="NAME|URL", help="Only to this endpoint."),
    ):
        function = option(function)
    return function


class _Group(click.Group):
    """Says what the database says in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
            raise RQJobsError(f"the database cannot be used: {reason}. Check DATABASE_URL: rqjobs doctor") from error
        except ValueError as error:
            raise RQJobsError(str(error)) from error


@click.group(cls=_Group)
def webhooks() -> None:
    """Endpoints, the log of deliveries, and sending again."""


@webhooks.command("endpoints")
@json_option
def endpoints_(*, as_json: bool) -> None:
    """List endpoints: what they subscribe to, and whether they answer."""
    found = table.list_endpoints(get_engine())
    if as_json:
        keep = ("name", "url", "events", "enabled", "reason", "failing_since", "created_at")
        print_json([{name: value for name, value in asdict(each).items() if name in keep} for each in found])
        return
    if not found:
        click.echo("no endpoints; register one with: rqjobs webhooks add NAME URL")
        return
    print_table(
        ("name", "url", "events", "state", "failing since"),
        (
            (
                each.name if each.name != each.url else "(not registered)",
                each.url,
                " ".join(each.events),
                "enabled" if each.enabled else f"disabled: {each.reason}",
                each.failing_since,
            )
            for each in found
        ),
    )


@webhooks.command()
@json_option
def destinations(*, as_json: bool) -> None:
    """List destinations that do not answer: their circuit breakers, and what is parked for them."""
    from rqjobs.processors.webhook.breaker import breakers

    found = breakers()
    if as_json:
        print_json([asdict(each) for each in found])
        return
    if not found:
        click.echo("every destination answers, nothing is parked")
        return
    print_table(
        ("destination", "breaker", "failures in a row", "parked", "next try"),
        ((x.destination, x.state, x.failures, x.parked, x.next_try) for x in found),
        right=("failures in a row", "parked"),
    )


@webhooks.command()
@click.argument("name")
@click.argument("url")
@click.option("--event", "events", multiple=True, metavar="PATTERN", help="booking.created, booking.* or * (default).")
@click.option("--secret", metavar="whsec_...", help="One that the receiver has already.")
@json_option
def add(*, name: str, url: str, events: tuple[str, ...], secret: str | None, as_json: bool) -> None:
    """Register an endpoint, or change its URL and events."""
    endpoint, signing = api.add_endpoint(name, url, events=events or ("*",), secret=secret)
    _tell_secret(endpoint.name, signing, as_json=as_json)


@webhooks.command()
@click.argument("name")
@click.option("--keep", default="24h", show_default=True, help="How long the previous secret signs as well.")
@json_option
def rotate(*, name: str, keep: str, as_json: bool) -> None:
    """Give an endpoint a new secret."""
    secret = table.rotate_secret(get_engine(), name, keep_previous=parse_duration(keep))
    _tell_secret(name, secret, as_json=as_json)


def _tell_secret(name: str, secret: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"name": name, "secret": secret})
        return
    click.echo(f"{name} verifies with this secret; it is shown this once:\n{secret}")


@webhooks.command()
@click.argument("name")
def remove(*, name: str) -> None:
    """Forget an endpoint; its deliveries stay in the log."""
    table.remove_endpoint(get_engine(), name)
    click.echo(f"removed {name}")


@webhooks.command()
@click.argument("endpoint", metavar="NAME|URL")
@json_option
def enable(*, endpoint: str, as_json: bool) -> None:
    """Deliver to an endpoint again."""
    names = table.set_enabled(get_engine(), endpoint, reason=None)
    if as_json:
        print_json({"enabled": names})
        return
    click.echo(f"enabled {', '.join(names)}; send what it missed with: rqjobs webhooks replay --endpoint {endpoint}")


@webhooks.command()
@click.argument("endpoint", metavar="NAME|URL")
@click.option("--reason", default="by hand", show_default=True)
@json_option
def disable(*, endpoint: str, reason: str, as_json: bool) -> None:
    """Deliver no more to an endpoint; its deliveries become dead letters."""
    names = table.set_enabled(get_engine(), endpoint, reason=reason)
    if as_json:
        print_json({"disabled": names})
        return
    click.echo(f"disabled {', '.join(names)}")


@webhooks.command()
@_filter_options
@click.option("--outcome", type=click.Choice(["done", "retry", "dead"]), help="Only attempts that ended so.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@json_option
def deliveries(*, limit: int, as_json: bool, **wanted: Any) -> None:
    """List attempts to deliver, newest first."""
    rows = log.find(get_engine(), Filter(**wanted), limit)
    if as_json:
        print_json([_document(row) for row in rows])
        return
    if not rows:
        click.echo("no deliveries")
        return
    print_table(
        ("id", "when", "endpoint", "event", "attempt", "outcome", "took", "error"),
        ((x.job_id, x.at, _short(x.endpoint), x.event, x.attempt, _outcome(x), _took(x), x.error) for x in rows),
        right=("attempt", "took"),
    )
    click.echo("one in full: rqjobs webhooks show ID    send again: rqjobs webhooks replay ID")


@webhooks.command()
@click.argument("job_id", metavar="ID")
@json_option
def show(*, job_id: str, as_json: bool) -> None:
    """Show one delivery: what was sent, and every attempt with its answer."""
    rows = sorted(log.find(get_engine(), Filter(job_id=job_id), 1000), key=lambda row: row.at_ms)
    if not rows:
        raise JobNotFound(job_id)
    job = _job(rows)
    if as_json:
        print_json({"id": job_id, "job": job, "attempts": [_document(row) for row in rows]})
        return
    click.echo(f"{job_id}  {rows[0].event}  to {rows[0].endpoint}")
    if job is not None:
        click.echo(json.dumps(job, indent=2, ensure_ascii=False))
    print_table(
        ("attempt", "at", "status", "took", "outcome", "error", "response"),
        (
            (x.attempt, x.at.strftime("%Y-%m-%d %H:%M:%S"), x.status, _took(x), x.outcome, x.error, x.response)
            for x in rows
        ),
        right=("attempt", "status", "took"),
    )


@webhooks.command()
@click.argument("job_ids", metavar="[ID ...]", nargs=-1)
@_filter_options
@click.option("--all", "everything", is_flag=True, help="Everything in the log that did not arrive.")
@click.option("--delivered-too", is_flag=True, help="Also what did arrive.")
@click.option(
    "--pace", type=click.FloatRange(0, min_open=True), default=10, show_default=True, help="So many a second."
)
@click.option("--dry-run", is_flag=True, help="Only say what would be sent.")
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
    """Send deliveries again, with their own webhook-ids: some by ID, or all that fit and did not arrive."""
    given = {name: value for name, value in wanted.items() if value is not None}
    if bool(job_ids) == bool(given or everything):
        raise click.UsageError("say which: IDs, or --endpoint, --event, --since, --until, or --all")
    filters = [Filter(job_id=job_id) for job_id in job_ids] or [Filter(**given)]
    total = api.Replay()
    for each in filters:
        # Who names a delivery means it, arrived or not.
        done = api.replay(each, pace=pace, delivered_too=delivered_too or bool(job_ids), dry_run=dry_run)
        if job_ids and not (done.enqueued or done.under_way or done.lost):
            raise JobNotFound(each.job_id or "")
        total.enqueued += done.enqueued
        total.under_way += done.under_way
        total.lost += done.lost
    if as_json:
        print_json(asdict(total) | {"dry_run": dry_run})
        return
    takes = format_duration(timedelta(seconds=len(total.enqueued) / pace))
    doing = "would send" if dry_run else "sending"
    click.echo(f"{doing} {len(total.enqueued)} again, {pace:g} a second ({takes})")
    for what, ids in (("still under way", total.under_way), ("no longer in the log", total.lost)):
        if ids:
            click.echo(f"{len(ids)} {what}: {' '.join(ids[:10])}{' ...' if len(ids) > 10 else ''}")  # noqa: PLR2004


def _job(rows: list[Delivery]) -> dict[str, Any] | None:
    """What was sent; the values of its headers, an API key maybe, stay out of sight."""
    stored = next((row.job for row in reversed(rows) if row.job is not None), None)
    if stored is None:
        return None
    job: dict[str, Any] = json.loads(stored)
    if "headers" in job:
        job["headers"] = dict.fromkeys(job["headers"], "***")
    return job


def _document(row: Delivery) -> dict[str, Any]:
    fields = row._asdict()
    fields.pop("job")
    fields["at"] = row.at
    fields.pop("at_ms")
    return fields


def _outcome(row: Delivery) -> str:
    return row.outcome if row.status is None else f"{row.status} {row.outcome}"


def _short(endpoint: str) -> str:
    """A name; of a URL, which may hold a token, where it leads."""
    parts = urlsplit(endpoint)
    return f"{parts.netloc}/..." if parts.scheme in ("http", "https") else endpoint


def _took(row: Delivery) -> timedelta:
    return timedelta(milliseconds=row.duration_ms)
