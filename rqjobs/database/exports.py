"""The table of exports: who exported what, the number of rows, and the expiry.

A row outlives its file, as an audit log.
"""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Float, String, Table

from rqjobs.database import metadata

exports = Table(
    "rqjobs_exports",
    metadata,
    Column("id", String(128), primary_key=True, doc="the job's id, so a retry writes the same row"),
    Column("user_id", String(255), nullable=False, index=True),
    Column("data_type", String(64), nullable=False),
    Column("export_type", String(16), nullable=False),
    Column("filters", JSON, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("location", String(2048), nullable=False, doc="the folder or fsspec URL that the file was published under"),
    Column("file_name", String(255), nullable=False, doc="the file in it"),
    # Unix seconds: the same in every database, and indexed for the purge.
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False, index=True),
    Column("deleted_at", Float, doc="when the file was deleted; the row stays"),
)
