"""docs/reference/commands.md is what ``rqjobs --help`` prints today."""

import runpy

from tests.support.workers import ROOT


def test_the_command_line_reference_is_that_of_the_commands():
    page = ROOT / "docs" / "reference" / "commands.md"
    written = runpy.run_path(str(ROOT / "docs" / "commands.py"))["render"]()
    assert page.read_text() == written, "run: make reference"
