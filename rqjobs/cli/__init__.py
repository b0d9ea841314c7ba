"""The command line. Each topic is a module of its own, imported when it is asked for."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import redis

from rqjobs.cli.examples import epilog, teach
from rqjobs.connection import PASSING
from rqjobs.errors import RQJobsError
from rqjobs.queues import import_registrations

_COMMANDS = {
    "worker": "rqjobs.cli.worker:worker",
    "enqueue": "rqjobs.cli.enqueue:enqueue",
    "health": "rqjobs.cli.health:health",
    "pause": "rqjobs.cli.health:pause",
    "resume": "rqjobs.cli.health:resume",
    "jobs": "rqjobs.cli.jobs:jobs",
    "failed": "rqjobs.cli.failed:failed",
    "doctor": "rqjobs.cli.doctor:doctor",
    "dashboard": "rqjobs.cli.dashboard:dashboard",
    "webhooks": "rqjobs.cli.webhooks:webhooks",
    "outbox": "rqjobs.cli.outbox:outbox",
    "exports": "rqjobs.cli.exports:exports",
    "email": "rqjobs.cli.email:email",
    "dev": "rqjobs.cli.dev:dev",
    "demo": "rqjobs.cli.demo:demo",
    "analytics": "rqjobs.cli.analytics:analytics",
    "db": "rqjobs.cli.db:db",
    "sandbox": "rqjobs.cli.sandbox:sandbox",
    "completion": "rqjobs.cli.completion:completion",
}
"""Every command, in the order of ``--help``, as ``module:attribute``."""


class _LazyGroup(click.Group):
    """A group that imports a command's module when it is called, so that each starts fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The commands' names, in the order of the table."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of this name, imported now."""
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        teach(command, cmd_name)
        return command


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=epilog(""),
)
@click.version_option(package_name="rqjobs")
def cli() -> None:
    """Background jobs on Redis: webhooks, ManyChat sync, email, QR analytics, data export.

    Settings come from the environment and from .env.
    """
    if (here := str(Path.cwd())) not in sys.path:  # where the app's modules are, as for flask, uvicorn and rq
        sys.path.append(here)
    import_registrations()


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line and exits: 2 with one plain line on stderr for what a user can mend."""
    try:
        plain: dict[str, Any] = {"color": False} if os.environ.get("NO_COLOR") else {}  # https://no-color.org
        code = cli.main(args, prog_name="rqjobs", standalone_mode=False, **plain)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = 2
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        more = f"; see: {context.command_path} --help" if context else ""
        click.echo(f"error: {error.format_message().rstrip('.')}{more}", err=True)
        code = 2
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except RQJobsError as error:
        click.echo(f"error: {error}", err=True)
        code = 2
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
        click.echo(f"error: the connection to Redis was lost: {error}", err=True)
        code = 2
    except PASSING as error:
        click.echo(f"error: Redis does not take it now: {error}", err=True)
        code = 2
    except BrokenPipeError:  # the reader of our output has gone: `rqjobs ... | head`
        sys.stderr.close()
        code = 0
    sys.exit(code if isinstance(code, int) else 0)
