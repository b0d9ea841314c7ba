"""The tables of QR analytics: raw events, the visitors of each day, and the counts that reports read."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Date, DateTime, Index, Integer, SmallInteger, String, Table
from sqlalchemy.dialects.postgresql import JSONB

from rqjobs.database import metadata

QUARTERS = 96
"""The quarter hours of a day. In every time zone in use, days begin at one of them in UTC."""

events = Table(
    "rqjobs_qr_events",
    metadata,
    Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True),
    Column("event_id", String(255), nullable=False, unique=True),
    Column("qr_code_id", String(255), nullable=False),
    Column("user_id", String(255)),
    Column("event", String(16), nullable=False),
    Column("result", String(64)),
    Column("occurred_at", DateTime(timezone=True), nullable=False),
    Column("bot", Boolean, nullable=False),
    Column("device", String(64), nullable=False),
    Column("os", String(64)),
    Column("browser", String(64)),
    Column("country", String(100)),
    Column("city", String(100)),
    Column("ip", String(45)),
    Column("visitor", String(16)),
    Column("extra", JSON),
    Column("recorded_at", DateTime(timezone=True), nullable=False),
    Index("ix_rqjobs_qr_events_user_id_occurred_at", "user_id", "occurred_at"),
)
"""The events, each once, with times in UTC and truncated addresses; kept for ANALYTICS_RETENTION.

``extra`` has the keys of the job's data that have no column.
"""

visitors = Table(
    "rqjobs_qr_visitors",
    metadata,
    Column("day", Date, primary_key=True),
    Column("visitor", String(16), primary_key=True),
    Column("scope", String(260), primary_key=True),
    Column("first", SmallInteger, nullable=False),
    Column("again", Boolean, nullable=False),
    Column("seen_on", Date, nullable=False),
    sqlite_with_rowid=False,
)
"""The visitors of a UTC day: the quarter hour of the first scan, and whether there was another.

The day comes first in the key, so that all writes of a day are in one part of the tree, however large it is; a
visitor's rows for the code and for its owner are adjacent.
"""

counts = Table(
    "rqjobs_qr_counts",
    metadata,
    Column("day", Date, primary_key=True),
    Column("scope", String(260), primary_key=True),
    Column("metric", String(16), primary_key=True),
    Column("value", String(255), primary_key=True),
    Column("total", BigInteger, nullable=False),
    Column("quarters", JSON().with_variant(JSONB(), "postgresql")),
    sqlite_with_rowid=False,
    postgresql_with={"fillfactor": "80"},
)
"""The number of events on a UTC day, in total and by quarter hour: ``{"48": 2}`` is two from 12:00 to 12:15.

``scope`` is ``all``, ``user:<owner>`` or ``code:<QR code>``. ``metric`` is an event (``value``: its result) or

- ``bot``: scans by bots, which are not in other counts
- ``visitor``: visitors by their first scan of the day; ``returning``: those with another scan
- ``client``: scans by device, system and browser, separated by tabs; ``place``: scans by country and city
- ``code``: scans by code, in the scopes ``all`` and ``user``
- ``client_week``, ``place_week``, ``code_week``: the same by week, at its Monday, without quarter hours, in the scopes
  ``all`` and ``user``: a quarter of a year of a thousand codes is 20,000 rows instead of 90,000

One row per day instead of one per quarter hour: a year is 365 rows, and the days of any time zone can be computed from
them. The day comes first in the key here too: a batch changes some hundred rows of today, which are then in few pages.
"""
