"""Alembic's scripts, run by rqjobs.database.schema, which passes them its connection."""
