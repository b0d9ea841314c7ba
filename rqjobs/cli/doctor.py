"""``rqjobs doctor``."""

from __future__ import annotations

from dataclasses import asdict

import click
from rich.markup import escape

from rqjobs.cli.output import console, json_option, print_json
from rqjobs.doctor import Finding, examine

_MARKS = {"ok": "[green]ok[/]     ", "fault": "[bold red]fault[/]  ", "skipped": "[dim]skipped[/]"}


@click.command()
@click.option("--online", is_flag=True, help="Also try the credentials of the mail provider and of ManyChat.")
@json_option
def doctor(*, online: bool, as_json: bool) -> int:
    """Examine this installation: each fault with its mend. Nothing is changed. Exit 1 if there is a fault.

    \b
    rqjobs doctor
    rqjobs doctor --online          before a release
    rqjobs doctor --json            for monitoring
    """  # noqa: D301  # click's \b keeps the lines
    found: list[Finding] = []
    out = console()
    for finding in examine(ask_providers=online):
        found.append(finding)
        if not as_json:
            out.print(
                f"{_MARKS[finding.state]} [bold]{finding.name}[/]  {escape(finding.said)}".rstrip(), soft_wrap=True
            )
            if finding.mend:
                out.print(f"          mend: {escape(finding.mend)}", soft_wrap=True)
    faults = sum(finding.state == "fault" for finding in found)
    if as_json:
        print_json({"healthy": not faults, "findings": [asdict(finding) for finding in found]})
    else:
        out.print(f"\n{faults} fault{'s' if faults != 1 else ''}" if faults else "\nall is well")
    return 1 if faults else 0
