"""All tables of the first release."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rqjobs_email_suppressions",
        sa.Column("address", sa.String(length=320), nullable=False),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.Column("job_id", sa.String(length=128), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("address", name=op.f("pk_rqjobs_email_suppressions")),
    )
    op.create_table(
        "rqjobs_exports",
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("data_type", sa.String(length=64), nullable=False),
        sa.Column("export_type", sa.String(length=16), nullable=False),
        sa.Column("filters", sa.JSON(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("location", sa.String(length=2048), nullable=False),
        sa.Column("file_name", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.Column("deleted_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rqjobs_exports")),
    )
    op.create_index(op.f("ix_rqjobs_exports_expires_at"), "rqjobs_exports", ["expires_at"], unique=False)
    op.create_index(op.f("ix_rqjobs_exports_user_id"), "rqjobs_exports", ["user_id"], unique=False)
    op.create_table(
        "rqjobs_outbox",
        sa.Column("token", sa.String(length=32), nullable=False),
        sa.Column("job_id", sa.String(length=128), nullable=False),
        sa.Column("lane", sa.String(length=255), nullable=False),
        sa.Column("due", sa.Float(precision=53), nullable=True),
        sa.Column("only_once", sa.Boolean(), nullable=False),
        sa.Column("fields", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("token", name=op.f("pk_rqjobs_outbox")),
    )
    op.create_table(
        "rqjobs_qr_counts",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("scope", sa.String(length=260), nullable=False),
        sa.Column("metric", sa.String(length=16), nullable=False),
        sa.Column("value", sa.String(length=255), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("quarters", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True),
        sa.PrimaryKeyConstraint("day", "scope", "metric", "value", name=op.f("pk_rqjobs_qr_counts")),
        postgresql_with={"fillfactor": "80"},
        sqlite_with_rowid=False,
    )
    op.create_table(
        "rqjobs_qr_events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("event_id", sa.String(length=255), nullable=False),
        sa.Column("qr_code_id", sa.String(length=255), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=True),
        sa.Column("event", sa.String(length=16), nullable=False),
        sa.Column("result", sa.String(length=64), nullable=True),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("bot", sa.Boolean(), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("os", sa.String(length=64), nullable=True),
        sa.Column("browser", sa.String(length=64), nullable=True),
        sa.Column("country", sa.String(length=100), nullable=True),
        sa.Column("city", sa.String(length=100), nullable=True),
        sa.Column("ip", sa.String(length=45), nullable=True),
        sa.Column("visitor", sa.String(length=16), nullable=True),
        sa.Column("extra", sa.JSON(), nullable=True),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rqjobs_qr_events")),
        sa.UniqueConstraint("event_id", name=op.f("uq_rqjobs_qr_events_event_id")),
    )
    op.create_index(
        "ix_rqjobs_qr_events_user_id_occurred_at", "rqjobs_qr_events", ["user_id", "occurred_at"], unique=False
    )
    op.create_table(
        "rqjobs_qr_visitors",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("visitor", sa.String(length=16), nullable=False),
        sa.Column("scope", sa.String(length=260), nullable=False),
        sa.Column("first", sa.SmallInteger(), nullable=False),
        sa.Column("again", sa.Boolean(), nullable=False),
        sa.Column("seen_on", sa.Date(), nullable=False),
        sa.PrimaryKeyConstraint("day", "visitor", "scope", name=op.f("pk_rqjobs_qr_visitors")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "rqjobs_webhook_deliveries",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("job_id", sa.String(length=128), nullable=False),
        sa.Column("endpoint", sa.String(length=255), nullable=False),
        sa.Column("event", sa.String(length=128), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("duration_ms", sa.Float(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("outcome", sa.String(length=8), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("response", sa.Text(), nullable=True),
        sa.Column("job", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rqjobs_webhook_deliveries")),
    )
    op.create_index(op.f("ix_rqjobs_webhook_deliveries_at_ms"), "rqjobs_webhook_deliveries", ["at_ms"], unique=False)
    op.create_index(
        "ix_rqjobs_webhook_deliveries_endpoint_at_ms", "rqjobs_webhook_deliveries", ["endpoint", "at_ms"], unique=False
    )
    op.create_index(op.f("ix_rqjobs_webhook_deliveries_job_id"), "rqjobs_webhook_deliveries", ["job_id"], unique=False)
    op.create_table(
        "rqjobs_webhook_endpoints",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("url_key", sa.String(length=255), nullable=False),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("secret", sa.String(length=128), nullable=True),
        sa.Column("previous_secret", sa.String(length=128), nullable=True),
        sa.Column("previous_until_ms", sa.BigInteger(), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("disabled_ms", sa.BigInteger(), nullable=True),
        sa.Column("failing_since_ms", sa.BigInteger(), nullable=True),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_rqjobs_webhook_endpoints")),
    )
    op.create_index(op.f("ix_rqjobs_webhook_endpoints_url_key"), "rqjobs_webhook_endpoints", ["url_key"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_rqjobs_webhook_endpoints_url_key"), table_name="rqjobs_webhook_endpoints")
    op.drop_table("rqjobs_webhook_endpoints")
    op.drop_index(op.f("ix_rqjobs_webhook_deliveries_job_id"), table_name="rqjobs_webhook_deliveries")
    op.drop_index("ix_rqjobs_webhook_deliveries_endpoint_at_ms", table_name="rqjobs_webhook_deliveries")
    op.drop_index(op.f("ix_rqjobs_webhook_deliveries_at_ms"), table_name="rqjobs_webhook_deliveries")
    op.drop_table("rqjobs_webhook_deliveries")
    op.drop_table("rqjobs_qr_visitors")
    op.drop_index("ix_rqjobs_qr_events_user_id_occurred_at", table_name="rqjobs_qr_events")
    op.drop_table("rqjobs_qr_events")
    op.drop_table("rqjobs_qr_counts")
    op.drop_table("rqjobs_outbox")
    op.drop_index(op.f("ix_rqjobs_exports_user_id"), table_name="rqjobs_exports")
    op.drop_index(op.f("ix_rqjobs_exports_expires_at"), table_name="rqjobs_exports")
    op.drop_table("rqjobs_exports")
    op.drop_table("rqjobs_email_suppressions")
