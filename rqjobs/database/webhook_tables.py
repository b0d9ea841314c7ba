"""The tables of webhooks: endpoints, and every attempt to deliver to them."""

from __future__ import annotations

import hashlib

from sqlalchemy import JSON, BigInteger, Boolean, Column, Float, Index, Integer, String, Table, Text, text

from rqjobs.database import metadata

_KEY_LENGTH = 255

endpoints = Table(
    "rqjobs_webhook_endpoints",
    metadata,
    Column("name", String(_KEY_LENGTH), primary_key=True),
    Column("url", Text, nullable=False),
    Column("url_key", String(_KEY_LENGTH), nullable=False, index=True),
    Column("events", JSON, nullable=False),  # a list of patterns: qr.scanned, booking.*, *
    Column("secret", Text),  # whsec_..., encrypted (rqjobs.config.encryption); printed only when it is made
    Column("previous_secret", Text),  # earlier ones, newest first: secret@end (Unix ms), separated by blanks
    Column("previous_until_ms", BigInteger),
    Column("enabled", Boolean, nullable=False),
    Column("reason", Text),  # why it is disabled
    Column("disabled_ms", BigInteger),
    Column("failing_since_ms", BigInteger),  # no delivery has succeeded since
    Column("created_ms", BigInteger, nullable=False),
)

WENT_WRONG = text("outcome <> 'done'")
"""The condition of a partial index, which a query must repeat literally for SQLite to use it."""

deliveries = Table(
    "rqjobs_webhook_deliveries",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("job_id", String(128), nullable=False, index=True),  # the webhook-id
    Column("endpoint", String(_KEY_LENGTH), nullable=False),
    Column("event", String(128), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("at_ms", BigInteger, nullable=False, index=True),  # Unix time: numbers cost the hot path least
    Column("duration_ms", Float, nullable=False),
    Column("status", Integer),
    Column("outcome", String(8), nullable=False),  # done, retry or dead
    Column("error", Text),
    Column("response", Text),  # its first 1,000 characters
    Column("job", Text),  # the job as JSON, with its first attempt: what a replay sends
    Index("ix_rqjobs_webhook_deliveries_endpoint_at_ms", "endpoint", "at_ms"),
    # Only for failed attempts, which users search for, so that a successful delivery does not pay for the index.
    Index(
        "ix_rqjobs_webhook_deliveries_outcome_at_ms",
        "outcome",
        "at_ms",
        sqlite_where=WENT_WRONG,
        postgresql_where=WENT_WRONG,
    ),
)


def endpoint_key(name_or_url: str) -> str:
    """Returns the key of an endpoint in the tables: its name or its URL, shortened for an index."""
    if len(name_or_url.encode()) <= _KEY_LENGTH:
        return name_or_url
    digest = hashlib.sha256(name_or_url.encode()).hexdigest()[:32]
    return ascii(name_or_url)[1 : _KEY_LENGTH - 32] + "#" + digest
