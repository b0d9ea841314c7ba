"""``rqjobs doctor``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from rqjobs.cli.output import adapted, bold, coloured, json_option, print_json, say

if TYPE_CHECKING:
    from rqjobs.monitoring.doctor.checks import Finding

_COLOURS = {"ok": "green", "fault": "red", "skipped": "yellow"}


@click.command()
@click.option("--online", is_flag=True, help="Also try the credentials of the mail provider and of ManyChat.")
@click.option("--every-job", is_flag=True, help="Check every job in Redis instead of a sample of some thousands.")
@json_option
def doctor(*, online: bool, every_job: bool, as_json: bool) -> int:
    """Check this installation, and show the fix of each fault.

    Nothing is changed. Exit 1 if there is a fault.
    """
    from rqjobs.monitoring.doctor.checks import examine

    found: list[Finding] = []
    for finding in examine(ask_providers=online, every_job=every_job):
        found.append(finding)
        if not as_json:
            mark = coloured(f"{finding.state:<7}", _COLOURS[finding.state], strong=finding.state == "fault")
            say(f"{mark}  {bold(f'{finding.name:<23}')}  {finding.said}".rstrip())
            if finding.fix:
                say(f"         fix: {adapted(finding.fix)}")
    faults = sum(finding.state == "fault" for finding in found)
    if as_json:
        # "mend": earlier versions had this name for "fix".
        print_json({"healthy": not faults, "findings": [{**asdict(finding), "mend": finding.fix} for finding in found]})
    else:
        say(f"\n{faults} fault{'s' if faults != 1 else ''}" if faults else "\nall is well")
    return 1 if faults else 0
