"""``rqjobs analytics report`` and ``purge``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING

import click

from rqjobs.cli.output import json_option, print_json, print_table, say
from rqjobs.config.durations import format_duration, parse_duration

if TYPE_CHECKING:
    from rqjobs.processors.analytics import Report
    from rqjobs.processors.analytics.period import Step
    from rqjobs.processors.analytics.reporting import Share

_SHADES = " ░▒▓█"
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_NUMBERS = ("scans", "visitors", "validations", "bots")
_RATES = ("conversion", "repeat_rate")
BAR = 28  # characters: with the numbers it fits into 80 columns


@click.group()
def analytics() -> None:
    """Report scans and validations of the QR codes."""


@analytics.command("report")
@click.option("--qr-code", metavar="ID", help="Only this code.")
@click.option("--user", metavar="ID", help="Only the codes of this owner.")
@click.option("--since", metavar="DAY", help="The first day, as 2026-11-01; by default 30 days in total.")
@click.option("--until", metavar="DAY", help="The last day, inclusive; today by default.")
@click.option("--zone", default="UTC", show_default=True, help="Time zone of days and hours: Europe/Berlin.")
@click.option(
    "--step",
    type=click.Choice(["hour", "day", "week", "month"]),
    help="Step of the series; by default chosen by length.",
)
@click.option("--top", type=click.IntRange(1, 1000), default=10, show_default=True, help="Rows of a breakdown.")
@json_option
def show_report(
    *,
    qr_code: str | None,
    user: str | None,
    since: str | None,
    until: str | None,
    zone: str,
    step: Step | None,
    top: int,
    as_json: bool,
) -> None:
    """Report on a period, compared with the period before.

    Totals, visitors, series, heat map and breakdowns.
    """
    from rqjobs.processors.analytics import report

    found = report(qr_code_id=qr_code, user_id=user, since=since, until=until, zone=zone, step=step, top=top)
    if as_json:
        print_json(found.as_dict())
        return
    _print(found)


@analytics.command("purge")
@click.option("--older-than", metavar="DURATION", help="Instead of ANALYTICS_RETENTION, such as 90d.")
def purge_events(*, older_than: str | None) -> None:
    """Delete raw events recorded long ago. Workers do this automatically; the counts are kept for ever."""
    from rqjobs.config.settings import get_settings
    from rqjobs.database import get_engine
    from rqjobs.database.schema import ensure_schema
    from rqjobs.processors.analytics import purge

    try:
        age = parse_duration(older_than) if older_than else get_settings().analytics_retention
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--older-than") from None
    engine = get_engine()
    ensure_schema(engine)
    say(f"deleted {purge(engine, age)} rows older than {format_duration(age)}; the counts stay")


def _print(found: Report) -> None:
    totals, before = found.totals, found.previous
    subject = "all QR codes"
    if found.qr_code_id is not None:
        subject = f"QR code {found.qr_code_id}"
    elif found.user_id is not None:
        subject = f"the codes of {found.user_id}"
    say(f"{subject}, {found.since} to {found.until}, {found.zone}\n")
    numbers = [
        *((name, f"{getattr(totals, name):,}", f"{getattr(before, name):,}") for name in _NUMBERS),
        *(
            (name.replace("_", " "), _percent(getattr(totals, name)), _percent(getattr(before, name)))
            for name in _RATES
        ),
    ]
    changes = (_change(found.change[name]) for name in (*_NUMBERS, *_RATES))
    rows = [(*row, change) for row, change in zip(numbers, changes, strict=True)]
    print_table(("", "now", "before", "change"), rows, right=("now", "before", "change"))
    results = {f"validation: {result or 'no result'}": number for result, number in totals.results.items()}
    others = {name: number for name, number in (results | dict(totals.events)).items() if number}
    if others:
        say()
        print_table(("event", "number"), [(name, f"{number:,}") for name, number in others.items()], right=("number",))
    if not totals.scans:
        say("\nno scans in this period")
        return
    _print_series(found)
    _print_heatmap(found.heatmap)
    breakdowns = {
        "code": found.codes,
        "device": found.devices,
        "system": found.systems,
        "browser": found.browsers,
        "country": found.countries,
        "city": found.cities,
    }
    for title, shares in breakdowns.items():
        _print_shares(title, shares)
    say("\nvisitors are counted by day (UTC): a visitor who comes back on another day counts again")


def _print_series(found: Report) -> None:
    say()
    most = max(point.scans for point in found.series) or 1
    right = ("scans", "visitors", "validations")
    rows = [
        (_start(point.start), *(f"{getattr(point, name):,}" for name in right), "█" * round(point.scans / most * BAR))
        for point in found.series
    ]
    print_table((found.step, *right, ""), [(*row[:-1], row[-1] or " ") for row in rows], right=right)


def _print_heatmap(heatmap: Sequence[Sequence[int]]) -> None:
    most = max(max(row) for row in heatmap) or 1
    say("\nscans by weekday and hour")
    say("     " + "".join(f"{hour:<12}" for hour in (0, 6, 12, 18)))
    for name, row in zip(_WEEKDAYS, heatmap, strict=True):
        cells = ("  " if not scans else _SHADES[max(1, -(-scans * 4 // most))] * 2 for scans in row)
        say(f"{name}  {''.join(cells)}".rstrip())


def _print_shares(title: str, shares: Sequence[Share]) -> None:
    if shares:
        say()
        rows = [(share.name or "not known", f"{share.scans:,}", _percent(share.share)) for share in shares]
        print_table((title, "scans", "share"), rows, right=("scans", "share"))


def _start(start: date | datetime) -> str:
    return f"{start:%a %d %b %H:%M}" if isinstance(start, datetime) else f"{start:%a} {start}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.1f} %"


def _change(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:+.1f} %"
