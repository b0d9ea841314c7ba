"""The application's own tables, as an app would have made them, with rows that have given exports trouble."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    insert,
)

metadata = MetaData()

contacts = Table(
    "contacts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("user_id", String(64), index=True),
    Column("manychat_id", BigInteger),
    Column("ig_username", String(64)),
    Column("first_name", Text),
    Column("last_name", Text),
    Column("email", Text),
    Column("phone", Text),
    Column("follower_count", Integer),
    Column("is_subscribed", Boolean),
    Column("tags", JSON),
    Column("password_hash", Text),
    Column("last_interaction", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True)),
)

bookings = Table(
    "bookings",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("user_id", Integer, index=True),
    Column("tool_id", String(32)),
    Column("helper_name", Text),
    Column("booking_date", Date),
    Column("start_time", String(5)),
    Column("end_time", String(5)),
    Column("status", String(16)),
    Column("service_type", Text),
    Column("notes", Text),
    Column("created_at", DateTime),
)

LONG = "Ω" * 39_990 + "0123456789"
BERLIN = timezone(timedelta(hours=1))


def make(engine: Engine) -> None:
    """Makes both tables, empty."""
    metadata.create_all(engine)


def add_contacts(engine: Engine, count: int, *, user_id: str = "user_1", first_id: int = 1) -> None:
    """Ordinary contacts: ten columns that a product has."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with engine.begin() as connection:
        for begin in range(0, count, 10_000):
            rows: list[dict[str, Any]] = [
                {
                    "id": first_id + number,
                    "user_id": user_id,
                    "manychat_id": 10_000_000 + number,
                    "ig_username": f"user_{number}",
                    "first_name": ("Zoë", "Łukasz", "Ada", "Νίκος", "Иван")[number % 5],
                    "last_name": f"Lovelace-{number}",
                    "email": f"ada.{number}@example.com",
                    "phone": f"+49151{number:07d}",
                    "follower_count": number * 7 % 100_000,
                    "is_subscribed": number % 3 != 0,
                    "tags": ["vip", "spring"] if number % 2 else ["new"],
                    "password_hash": "never exported",
                    "last_interaction": start + timedelta(seconds=number),
                    "created_at": start + timedelta(minutes=number),
                }
                for number in range(begin, min(begin + 10_000, count))
            ]
            connection.execute(insert(contacts), rows)


def add_bookings(engine: Engine, rows: list[dict[str, Any]]) -> None:
    """The given bookings, each over an ordinary one."""
    base: dict[str, Any] = {
        "user_id": 7, "tool_id": "tool_1", "helper_name": "Ada", "booking_date": date(2026, 2, 3),
        "start_time": "09:30", "end_time": "10:00", "status": "confirmed", "service_type": "consulting",
        "notes": None,
        "created_at": datetime(2026, 2, 1, 12, 30),  # noqa: DTZ001  # as apps store it
    }  # fmt: skip
    with engine.begin() as connection:
        connection.execute(insert(bookings), [base | row for row in rows])


TROUBLE: list[tuple[Any, ...]] = [
    (1, "plain", None, True, Decimal("12.30"), datetime(2026, 1, 31, 23, 30, tzinfo=BERLIN), date(2026, 1, 31)),
    (2, "", 'two\r\nlines, "quoted"; a; b', False, Decimal("-0.10"), None, None),
    (3, "Ελληνικά Кириллица Łódź 東京 العربية 👍🏽", LONG, None, Decimal("123456789012345678.1234"), None, None),
    (4, "\x00\x01\x0b\x1f tab\there", "a\ud800b", True, None, datetime(1899, 1, 1, tzinfo=UTC), date(1899, 12, 31)),
    (5, " lead and trail ", "_x0041_ <r>&amp;</r> </script>", None, Decimal(0), None, date(2026, 12, 31)),
    (2**53 + 1, "=1+1", "@SUM(A1)", False, Decimal("1E+3"), datetime(2026, 7, 1, 12, 0, 0, 250_000, tzinfo=UTC), None),
]
"""id, name, notes, flag, price, moment, day: None, unicode, 40,000 characters, control characters, lone surrogates,
zoned dates, Decimals, formulas."""
TROUBLE_COLUMNS = ("id", "name", "notes", "flag", "price", "moment", "day")
