"""``rqjobs db init``."""

from __future__ import annotations

import click


@click.group()
def db() -> None:
    """The tables at DATABASE_URL."""


@db.command()
def init() -> None:
    """Make the tables, or upgrade them. Does nothing where they are up to date; never touches other tables."""
    from rqjobs.database import get_engine
    from rqjobs.database.schema import HEAD, init_database, schema_version

    engine = get_engine()
    before = schema_version(engine)
    init_database(engine)
    where = engine.url.render_as_string()
    if before == HEAD:
        click.echo(f"{where} is up to date (version {HEAD})")
    else:
        click.echo(f"{where}: tables {'made' if before is None else f'upgraded from {before}'} (version {HEAD})")
