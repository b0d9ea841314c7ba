"""The check of the database: whether it answers, and has our tables."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy.exc import SQLAlchemyError

from rqjobs.database import get_engine
from rqjobs.database.schema import HEAD, schema_version
from rqjobs.monitoring.doctor.finding import Finding, fault, fine


def schema() -> Iterator[Finding]:
    """Checks that the database answers, and that its tables have the version that this rqjobs needs."""
    try:
        engine = get_engine()
        address = engine.url.render_as_string()
        found = schema_version(engine)
    except (SQLAlchemyError, OSError) as error:
        lines = (str(getattr(error, "orig", None) or error)).splitlines()
        yield fault("", f"it does not answer: {lines[0] if lines else error!r}", "start it, or fix DATABASE_URL")
        return
    if found is None and engine.dialect.name == "sqlite":
        yield fine("", f"{address}: tables are made at their first use")
    elif found is None:
        yield fault("", f"{address} has none of our tables", "rqjobs db init")
    elif found < HEAD:
        yield fault("", f"{address} has tables of version {found}, {HEAD} is needed", "rqjobs db init")
    elif found > HEAD:
        yield fault("", f"{address} has tables of the newer version {found}", "upgrade rqjobs here")
    else:
        yield fine("", f"{address}, tables of version {found}")
