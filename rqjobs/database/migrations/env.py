"""The environment of Alembic's scripts: our connection, and only our tables."""

from alembic import context

from rqjobs.database import metadata
from rqjobs.database.schema import VERSION_TABLE, load_tables


def ours(name: str | None, kind: str, _parents: object) -> bool:
    return kind != "table" or (name or "").startswith("rqjobs_")


load_tables()
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    include_name=ours,
    transactional_ddl=True,
)
context.run_migrations()
