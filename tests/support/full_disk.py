"""For RQJOBS_IMPORT: SQLite has a full disk while the file that FULL_DISK names is there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event


@event.listens_for(Engine, "begin")
def limit(connection: Any) -> None:
    pages = 1 if Path(os.environ["FULL_DISK"]).exists() else 1_000_000  # never below what there is
    connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
