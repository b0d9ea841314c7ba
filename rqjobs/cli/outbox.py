"""``rqjobs outbox``: moves the rows of the transactional outbox, and counts them."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import click

from rqjobs.cli.output import json_option, print_json, say
from rqjobs.config.logs import set_up_logs


@click.group()
def outbox() -> None:
    """Move jobs from the app's database to Redis.

    Workers do this automatically.
    """


@outbox.command("relay")
@click.option("--once", is_flag=True, help="Move the committed jobs and end.")
@json_option
def relay_command(*, once: bool, as_json: bool) -> None:
    """Move committed jobs to Redis until stopped.

    For apps whose workers cannot reach the database.
    """
    from rqjobs.config.settings import get_settings
    from rqjobs.outbox.relay import relay
    from rqjobs.outbox.thread import Relay

    if once:
        moved = relay()
        if as_json:
            print_json({"moved": moved})
        else:
            say(f"moved {moved}")
        return
    set_up_logs()
    relay()  # ends the command for a fault that a user can fix
    # 0 means that workers leave the outbox to this command
    Relay(get_settings().rqjobs_outbox_every or timedelta(seconds=1)).run(threading.Event())


@outbox.command()
@json_option
def status(*, as_json: bool) -> None:
    """Show the number of jobs that wait for the relay, and since when."""
    from sqlalchemy import func, select

    from rqjobs.database import get_engine
    from rqjobs.database.outbox import outbox as table
    from rqjobs.database.schema import ensure_schema

    engine = get_engine()
    ensure_schema(engine)
    with engine.connect().execution_options(sqlite_read=True) as connection:
        waiting, oldest = connection.execute(select(func.count(), func.min(table.c.created_at))).one()
    document: dict[str, Any] = {"waiting": waiting, "oldest": oldest}
    if as_json:
        print_json(document)
    else:
        say(f"{waiting} waiting")
