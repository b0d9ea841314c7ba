"""Writes docs/reference/commands.md, the command-line reference, from the commands of ``rqjobs``: make reference."""  # noqa: INP001

import re
from collections.abc import Iterator
from pathlib import Path

import click

from rqjobs.cli import cli

PAGE = Path(__file__).parent / "reference" / "commands.md"

_HEAD = """# Command line

Every command of `rqjobs` with its arguments and options, as `--help` shows them. In a Flask app the same commands are
`flask --app app rqjobs ...`, in a Django project `python manage.py rqjobs ...`. Settings come from the environment and
from `.env` in the working folder ([Settings](settings.md)).

Exit codes: 0 done, 1 a check has failed (an unhealthy queue, a fault that `doctor` found), 2 the command could not run
(wrong arguments, Redis unavailable), 130 ended by Ctrl-C. With `--json` a command prints one JSON document on stdout.

`make reference` writes this page. A test fails when it differs from the commands.
"""


def render() -> str:
    """Returns the page: a list of all commands, then one section for each, in the order of ``rqjobs --help``."""
    top = click.Context(cli, info_name="rqjobs", terminal_width=100, help_option_names=["-h", "--help"])
    commands = list(_commands(cli, top))
    links = [f"- [`{ctx.command_path}`](#{ctx.command_path.replace(' ', '-')}): {_purpose(ctx)}" for ctx in commands]
    return "\n".join([_HEAD, *links, "", *map(_section, commands)])


def _commands(command: click.Command, context: click.Context) -> Iterator[click.Context]:
    """Yields the contexts of all commands that can be run, those of groups included."""
    if not isinstance(command, click.Group):
        yield context
        return
    for name in command.list_commands(context):
        if found := command.get_command(context, name):
            yield from _commands(found, click.Context(found, info_name=name, parent=context))


def _purpose(context: click.Context) -> str:
    return context.command.get_short_help_str(limit=150)


def _section(context: click.Context) -> str:
    text = re.sub(r"\n *-h, --help .*", "", context.command.get_help(context))
    return f"## {context.command_path}\n\n```text\n{text.rstrip()}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(render())
