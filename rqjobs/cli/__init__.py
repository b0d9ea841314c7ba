"""The command line. Each command is in its own module, which is imported when the command is called."""

from __future__ import annotations

import atexit
import difflib
import gc
import importlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import click
from click.shell_completion import CompletionItem

from rqjobs.cli.examples import epilog, teach
from rqjobs.cli.output import say
from rqjobs.errors import RQJobsError
from rqjobs.security.printable import printable

_COMMANDS = {
    "worker": "Run jobs of QUEUES, all by default, in priority order.",
    "enqueue": "Enqueue one job.",
    "health": "Show the jobs of every queue by state, and its health.",
    "queues": "Show the policy of every queue, and where each value comes from.",
    "pause": "Pause QUEUE: workers claim none of its jobs until it is resumed.",
    "resume": "End the pause of QUEUE.",
    "jobs": "Show, run now, stop and delete single jobs.",
    "schedules": "Recurring jobs: list, add, pause, resume, run now, remove.",
    "batches": "Batches and chains: list, show, cancel, requeue dead members.",
    "failed": "List, explain, requeue and purge dead jobs.",
    "doctor": "Check this installation, and show the fix of each fault.",
    "dashboard": "Serve the dashboard, rq-dashboard and the metrics.",
    "webhooks": "Manage endpoints; show and replay deliveries.",
    "outbox": "Move jobs from the app's database to Redis.",
    "exports": "List exports, make links to them, delete expired files.",
    "email": "Show mail templates, and the list of suppressed addresses.",
    "dev": "Run Redis, a worker and the dashboard, in one terminal.",
    "demo": "Run jobs of all five kinds on loopback, and show the results.",
    "analytics": "Report scans and validations of the QR codes.",
    "db": "Make the tables at DATABASE_URL; encrypt secrets again.",
    "sandbox": "Run a test double of a provider's API on loopback.",
    "completion": "Print the script that completes rqjobs in SHELL.",
}
"""All commands, in the order of ``--help``, with the first sentence of their help. Each is ``rqjobs.cli.MODULE:NAME``.
"""

_ELSEWHERE = {"pause": "health", "resume": "health"}
"""The modules of commands whose module has another name."""


_READING = {"health", "jobs", "schedules", "failed", "webhooks", "exports", "analytics", "email"}
"""The commands that read past keys of another type, and name each on stderr. ``doctor`` has a check for them."""


_PLAIN = f"{__name__}.plain"

GC_THRESHOLD = 100_000
"""The number of new objects between two garbage collections. With Python's default they take a sixth of the time of a
short command, which loads modules and leaves no garbage. The worker sets its own threshold."""


class _LazyGroup(click.Group):
    """A group that imports the module of a command when it is called, but not for ``--help`` and completion."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Returns the names of the commands, in the order of the table."""
        return list(_COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Returns the command, and records whether it needs the app's modules, which help texts do not."""
        ctx.meta[_PLAIN] = args[:1] == ["completion"] or not set(args).isdisjoint(ctx.help_option_names)
        if args[0] not in _COMMANDS and args[0][:1].isalnum():
            close = difflib.get_close_matches(args[0], _COMMANDS, 1)
            ctx.fail(f"No such command {args[0]!r}." + (f" Did you mean {close[0]!r}?" if close else ""))
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Imports and returns the command with this name."""
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"rqjobs.cli.{_ELSEWHERE.get(cmd_name, cmd_name)}")
        command: click.Command = getattr(module, cmd_name)
        teach(command, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Writes the commands of ``--help`` without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Returns the commands and options with this beginning, without importing them."""
        commands = [CompletionItem(name, help=said) for name, said in _COMMANDS.items() if name.startswith(incomplete)]
        return commands + click.Command.shell_complete(self, ctx, incomplete)


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=epilog(""),
)
@click.version_option(package_name="rqjobs")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Background jobs on Redis: webhooks, ManyChat sync, email, QR analytics, data export.

    Settings come from the environment and from .env.
    """
    if (here := str(Path.cwd())) not in sys.path:  # the app's modules are here, as for flask, uvicorn and rq
        sys.path.append(here)
    if not ctx.meta.get(_PLAIN):
        from rqjobs.policies import import_registrations

        import_registrations()
    if ctx.invoked_subcommand in _READING and not ctx.meta.get(_PLAIN):
        ctx.with_resource(_reading_past())


@contextmanager
def _reading_past() -> Iterator[None]:
    from rqjobs.broker.unreadable import reading, unreadable_keys

    with reading() as noted:
        yield
        if noted:
            from rqjobs.broker.connection import get_connection

            for key in unreadable_keys(get_connection()):
                say(key.text, err=True)


def main(args: Sequence[str] | None = None, *, program: str = "rqjobs") -> None:
    """Runs the command line and exits; for faults that a user can fix with exit code 2 and one line on stderr.

    Args:
        args: the arguments after the program's name; by default those of this process.
        program: the name of the program for help texts, such as ``python manage.py rqjobs``.
    """
    gc.set_threshold(GC_THRESHOLD, 50, 100)
    atexit.register(_leave)
    sys.excepthook = _show_traceback
    try:
        plain: dict[str, Any] = {"color": False} if os.environ.get("NO_COLOR") else {}  # https://no-color.org
        code = cli.main(args, prog_name=program, standalone_mode=False, **plain)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = 2
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        more = f"; see: {context.command_path} --help" if context else ""
        say(f"error: {error.format_message().rstrip('.')}{more}", err=True)
        code = 2
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except RQJobsError as error:
        say(f"error: {error}", err=True)
        code = 2
    except BrokenPipeError:  # the reader has closed the pipe, as in `rqjobs ... | head`
        sys.stderr.close()
        code = 0
    except Exception as error:
        if (said := _redis_fault(error)) is None:
            raise
        say(f"error: {said}", err=True)
        code = 2
    sys.exit(code if isinstance(code, int) else 0)


def _leave() -> None:
    """Excludes all objects from the last garbage collection, which takes a sixth of the time of a short command.

    Not with SQLAlchemy: its engine is part of reference cycles, and its connections must be closed.
    """
    if "sqlalchemy" not in sys.modules:
        gc.freeze()


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints the traceback of an unexpected error, made printable, because its message may contain untrusted text."""
    sys.stderr.write(printable("".join(traceback.format_exception(kind, error, trace))))


def _redis_fault(error: Exception) -> str | None:
    if "WRONGTYPE" in str(error):
        return f"a key of RQ's or ours is of another type, rqjobs doctor names it and its fix: {error}"
    return None
