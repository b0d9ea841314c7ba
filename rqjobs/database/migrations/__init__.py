"""Alembic's scripts: run by rqjobs.database.schema, which hands them its connection."""
