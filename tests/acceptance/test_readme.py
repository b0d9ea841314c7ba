"""The README's Python runs as it stands there, and its commands exist."""

import re
from pathlib import Path

import pytest
from rq import Queue

from rqjobs.cli import cli

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"^\$ rqjobs ([a-z]+)", README, re.MULTILINE)


def test_the_python_examples_run_one_after_the_other(redis, only_our_queues):
    namespace = {"__name__": "__main__"}  # as it is when a reader runs it
    assert len(BLOCKS) >= 3
    for block in BLOCKS:
        if "from django" in block:  # needs a project: test_newcomer
            continue
        exec(compile(block, "README.md", "exec"), namespace)
    assert Queue("webhooks", connection=redis).count == 3
    assert Queue("qr-analytics", connection=redis).count == 1


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_the_commands_exist(command):
    assert cli.get_command(None, command)
