"""The suppression list: addresses that do not exist, to which no mail is sent any more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Column, DateTime, String, Table, delete, insert, select

from rqjobs.database import get_engine, metadata
from rqjobs.database.schema import ensure_schema

suppressions = Table(
    "rqjobs_email_suppressions",
    metadata,
    Column("address", String(320), primary_key=True),
    Column("reason", String(500), nullable=False),
    Column("job_id", String(128)),
    Column("created_at", DateTime(timezone=True), nullable=False),
)


@dataclass(frozen=True, slots=True)
class Suppression:
    """One address to which no mail is sent."""

    address: str
    reason: str
    """The server's reply, or the reason given by a user or the app."""
    job_id: str | None
    """The id of the mail that the server refused; None if a user or the app added the address."""
    created_at: datetime


def suppress(reasons: dict[str, str], *, job_id: str | None = None) -> None:
    """Adds addresses to the suppression list, each with its reason; a new reason replaces an old one."""
    if not reasons:
        return
    ensure_schema(get_engine())
    rows = [
        {"address": key, "reason": reason[:500], "job_id": job_id, "created_at": datetime.now(UTC)}
        for key, reason in {_key(address): reason for address, reason in reasons.items()}.items()
    ]
    with get_engine().begin() as connection:
        connection.execute(delete(suppressions).where(suppressions.c.address.in_([row["address"] for row in rows])))
        connection.execute(insert(suppressions), rows)


def suppressed(addresses: Sequence[str]) -> dict[str, str]:
    """Returns those of ``addresses`` that are on the suppression list, each with its reason."""
    ensure_schema(get_engine())
    query = select(suppressions.c.address, suppressions.c.reason).where(
        suppressions.c.address.in_([_key(address) for address in addresses])
    )
    with get_engine().connect().execution_options(sqlite_read=True) as connection:
        reasons = {row.address: row.reason for row in connection.execute(query)}
    return {address: reasons[_key(address)] for address in addresses if _key(address) in reasons}


def list_suppressions() -> list[Suppression]:
    """Returns all suppressed addresses, newest first."""
    ensure_schema(get_engine())
    with get_engine().connect().execution_options(sqlite_read=True) as connection:
        rows = connection.execute(select(suppressions).order_by(suppressions.c.created_at.desc())).all()
    return [Suppression(row.address, row.reason, row.job_id, row.created_at.replace(tzinfo=UTC)
            if row.created_at.tzinfo is None else row.created_at) for row in rows]  # fmt: skip


def lift(addresses: Iterable[str]) -> list[str]:
    """Removes addresses from the list; returns those that were on it."""
    ensure_schema(get_engine())
    with get_engine().begin() as connection:
        return [
            address
            for address in addresses
            if connection.execute(delete(suppressions).where(suppressions.c.address == _key(address))).rowcount
        ]


def _key(address: str) -> str:
    # By RFC 5321 case matters before the @; in practice it does not.
    return address.lower()
