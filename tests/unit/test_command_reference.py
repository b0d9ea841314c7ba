"""docs/reference/commands.md is what ``rqjobs --help`` prints today."""

import subprocess
import sys

from tests.support.workers import ROOT

RENDER = "import runpy; print(runpy.run_path('docs/commands.py')['render'](), end='')"


def test_the_command_line_reference_is_that_of_the_commands():
    """In a process of its own: other tests register queues, which some helps list."""
    done = subprocess.run([sys.executable, "-c", RENDER], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (ROOT / "docs" / "reference" / "commands.md").read_text() == done.stdout, "run: make reference"
