"""An index for failed deliveries."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

INDEX, TABLE = "ix_rqjobs_webhook_deliveries_outcome_at_ms", "rqjobs_webhook_deliveries"
WENT_WRONG = sa.text("outcome <> 'done'")


def upgrade() -> None:
    op.create_index(INDEX, TABLE, ["outcome", "at_ms"], sqlite_where=WENT_WRONG, postgresql_where=WENT_WRONG)


def downgrade() -> None:
    op.drop_index(INDEX, table_name=TABLE)
