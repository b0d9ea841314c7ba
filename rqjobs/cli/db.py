"""``rqjobs db``: the tables, and the encryption of stored secrets."""

from __future__ import annotations

from dataclasses import asdict

import click

from rqjobs.cli.output import json_option, print_json, print_table, say


@click.group()
def db() -> None:
    """Make the tables at DATABASE_URL; encrypt secrets again."""


@db.command()
def init() -> None:
    """Make the tables, or upgrade them. Never changes other tables, and does nothing if ours are up to date."""
    from rqjobs.database import get_engine
    from rqjobs.database.schema import HEAD, init_database, schema_version

    engine = get_engine()
    before = schema_version(engine)
    init_database(engine)
    where = engine.url.render_as_string()
    if before == HEAD:
        say(f"{where} is up to date (version {HEAD})")
    else:
        say(f"{where}: tables {'made' if before is None else f'upgraded from {before}'} (version {HEAD})")


@db.command()
@click.option("--dry-run", is_flag=True, help="Count only.")
@json_option
def reencrypt(*, dry_run: bool, as_json: bool) -> int:
    """Encrypt secrets again under RQJOBS_SECRET_KEY.

    Endpoint secrets and webhook headers in the database and in Redis that are unencrypted, or encrypted under a key of
    RQJOBS_SECRET_KEY_OLD. Start all processes with the new key first. Exit 1 if a secret cannot be decrypted.
    """
    from rqjobs.broker.reencryption import reencrypt as reencrypt_all

    areas = reencrypt_all(dry_run=dry_run)
    unreadable = sum(area.unreadable for area in areas)
    if as_json:
        print_json({"dry_run": dry_run, "areas": [asdict(area) for area in areas]})
        return 1 if unreadable else 0
    numbers = ("under the present key", "would change" if dry_run else "changed", "unreadable", "in clear")
    rows = [(area.name, area.current, area.changed, area.unreadable, area.clear) for area in areas]
    print_table(("", *numbers), rows, right=numbers)
    if unreadable:
        say(f"{unreadable:,} cannot be decrypted: list the key that they were encrypted under in RQJOBS_SECRET_KEY_OLD")
    elif any(area.clear for area in areas):
        say("some stay in clear, since their store is on another machine: set RQJOBS_SECRET_KEY")
    elif not dry_run:
        say("RQJOBS_SECRET_KEY_OLD is not needed any more")
    return 1 if unreadable else 0
