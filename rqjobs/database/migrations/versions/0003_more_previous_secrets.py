"""A longer column for several previous secrets of an endpoint, all of which still sign."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLE, COLUMN = "rqjobs_webhook_endpoints", "previous_secret"


def upgrade() -> None:
    with op.batch_alter_table(TABLE) as table:
        table.alter_column(COLUMN, existing_type=sa.String(128), type_=sa.Text())


def downgrade() -> None:
    with op.batch_alter_table(TABLE) as table:
        table.alter_column(COLUMN, existing_type=sa.Text(), type_=sa.String(128))
