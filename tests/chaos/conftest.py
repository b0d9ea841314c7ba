"""The table of all scenarios, at the end of a run of the chaos suite."""

from __future__ import annotations

from pathlib import Path

import pytest

COLUMNS = (
    "acknowledged",
    "refused",
    "done",
    "waiting",
    "own",
    "held",
    "dead",
    "stated",
    "lost",
    "doubled",
    "excused",
    "seconds",
)
_HEADS = (
    "acked",
    "refused",
    "done",
    "waiting",
    "own fault",
    "held",
    "dead",
    "as stated",
    "lost",
    "doubled",
    "in windows",
    "s",
)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints the counts, and writes them to ``.rqjobs/chaos.txt``."""
    reports = [report for key in ("passed", "failed") for report in terminalreporter.stats.get(key, ())]
    rows = [dict(report.user_properties) for report in reports if getattr(report, "when", "") == "call"]
    runs = [row["chaos"] for row in rows if "chaos" in row]
    if not runs:
        return
    width = max(len(run["name"]) for run in runs) + 2
    heads = "".join(f"{head:>11}" for head in _HEADS)
    table = [f"{'':{width}}{heads}"]
    for run in runs:
        table.append(f"{run['name']:{width}}" + "".join(f"{run[column]:>11,.0f}" for column in COLUMNS))
    terminalreporter.section("chaos: counts")
    terminalreporter.write_line("\n".join(table))
    folder = Path(config.rootpath) / ".rqjobs"
    folder.mkdir(exist_ok=True)
    (folder / "chaos.txt").write_text("\n".join(table) + "\n")
