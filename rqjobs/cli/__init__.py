"""The command line. Each command is a module of its own, imported when it is called."""

from __future__ import annotations

import atexit
import difflib
import gc
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
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
    "pause": "Let no worker take jobs of QUEUE until it is resumed.",
    "resume": "End the pause of QUEUE.",
    "jobs": "Show, run sooner, stop and delete single jobs.",
    "schedules": "Recurring jobs: list, add, pause, resume, run now, remove.",
    "failed": "List, explain, requeue and purge the jobs that died.",
    "doctor": "Examine this installation: each fault with its fix.",
    "dashboard": "Serve the dashboard, rq-dashboard and the metrics.",
    "webhooks": "Endpoints, the log of deliveries, and sending again.",
    "outbox": "Move jobs from the app's database to Redis.",
    "exports": "List exports, make links to them, delete what is due.",
    "email": "Show mail templates, and the list of suppressed addresses.",
    "dev": "Run Redis, a worker and the dashboard, in one terminal.",
    "demo": "Run the main job end to end, and show what happened.",
    "analytics": "Report scans and validations of the QR codes.",
    "db": "The tables at DATABASE_URL.",
    "sandbox": "Run a test double of a provider's API on loopback.",
    "completion": "Print the script that completes rqjobs in SHELL.",
}
"""Every command, in the order of ``--help``, with its first sentence. Each is ``rqjobs.cli.MODULE:NAME``."""

_ELSEWHERE = {"pause": "health", "resume": "health"}
"""The modules of commands that have none of their own name."""


_PLAIN = f"{__name__}.plain"

GC_THRESHOLD = 100_000
"""New objects between two garbage collections: as Python has it, they take a sixth of a short command's time, which
loads modules and leaves no garbage. The worker sets a threshold of its own."""


class _LazyGroup(click.Group):
    """A group that imports a command's module when it is called: ``--help`` and completion do without."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The commands' names, in the order of the table."""
        return list(_COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command meant; whether it needs the app's modules is kept: a help does not."""
        ctx.meta[_PLAIN] = args[:1] == ["completion"] or not set(args).isdisjoint(ctx.help_option_names)
        if args[0] not in _COMMANDS and args[0][:1].isalnum():
            close = difflib.get_close_matches(args[0], _COMMANDS, 1)
            ctx.fail(f"No such command {args[0]!r}." + (f" Did you mean {close[0]!r}?" if close else ""))
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of this name, imported now."""
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"rqjobs.cli.{_ELSEWHERE.get(cmd_name, cmd_name)}")
        command: click.Command = getattr(module, cmd_name)
        teach(command, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The commands of ``--help``, none of them imported."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands that begin like this, none of them imported, and the options."""
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
    if (here := str(Path.cwd())) not in sys.path:  # where the app's modules are, as for flask, uvicorn and rq
        sys.path.append(here)
    if not ctx.meta.get(_PLAIN):
        from rqjobs.policies import import_registrations

        import_registrations()


def main(args: Sequence[str] | None = None, *, program: str = "rqjobs") -> None:
    """Runs the command line and exits: 2 with one plain line on stderr for what a user can fix.

    Args:
        args: the words after the program's name; those of this process by default.
        program: how the program was called, for its own help texts: ``python manage.py rqjobs``.
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
    except BrokenPipeError:  # the reader of our output has gone: `rqjobs ... | head`
        sys.stderr.close()
        code = 0
    except Exception as error:
        if (said := _redis_fault(error)) is None:
            raise
        say(f"error: {said}", err=True)
        code = 2
    sys.exit(code if isinstance(code, int) else 0)


def _leave() -> None:
    """Spares a short command a last look through all that it has loaded, a sixth of its time. SQLAlchemy's engine is in
    circles, and its connections are to be closed.
    """  # noqa: D205
    if "sqlalchemy" not in sys.modules:
        gc.freeze()


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A fault of ours, as Python shows it: its message may hold text from outside."""
    sys.stderr.write(printable("".join(traceback.format_exception(kind, error, trace))))


def _redis_fault(error: Exception) -> str | None:
    if "WRONGTYPE" in str(error):
        return f"a key of RQ's or ours is of another type; delete it, or move what wrote it: {error}"
    return None
