"""Writes the delivery log: attempts are collected in memory and written in batches, outside of deliveries."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from sqlalchemy.exc import SQLAlchemyError

from rqjobs.config.logs import event
from rqjobs.config.settings import get_settings
from rqjobs.database import get_engine
from rqjobs.database.webhook_deliveries import Delivery, purge, write
from rqjobs.database.webhook_endpoints import list_endpoints
from rqjobs.database.webhook_health import Health
from rqjobs.errors import RQJobsError
from rqjobs.processors.webhook.endpoint_cache import call_hooks

_EVERY = 0.25  # seconds between two batches
_KEPT = 100_000  # the most rows kept in memory while the database does not answer
_EVERY_WHILE_DOWN = 5.0
_FIRST_PURGE, _PURGE_EVERY = 60.0, 3600.0


class DeliveryLog:
    """The unwritten attempts of one event loop."""

    def __init__(self) -> None:
        self._rows: list[Delivery] = []
        self._health: dict[str, Health] = {}
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rqjobs-delivery-log")
        self._pause = _EVERY
        self._purge_at = time.monotonic() + _FIRST_PURGE

    def add(self, row: Delivery, health: Health | None) -> None:
        """Adds one attempt, and its effect on the health of the endpoint, if any."""
        self._rows.append(row)
        if health is not None:
            known = self._health.get(health.key)
            if known is None:
                self._health[health.key] = health
            elif not (known.succeeded and health.succeeded):
                self._health[health.key] = _together(known, health)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._write_soon())

    def close(self) -> None:
        """Writes all rows; the log cannot be used afterwards."""
        if self._task is not None:
            self._task.cancel()
        self._thread.shutdown(wait=True)
        self._write(*self._take())

    async def _write_soon(self) -> None:
        while self._rows:
            await asyncio.sleep(self._pause)
            # On the event loop, which also adds rows, so that none is added in between.
            batch = self._take()
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write, *batch)

    def _take(self) -> tuple[list[Delivery], dict[str, Health]]:
        batch = self._rows, self._health
        self._rows, self._health = [], {}
        return batch

    def _write(self, rows: list[Delivery], health: dict[str, Health]) -> None:
        if not rows:
            return
        settings = get_settings()
        try:
            disabled = write(get_engine(), rows, list(health.values()), settings.webhook_disable_after)
            self._pause = _EVERY
            if disabled:
                self._tell(disabled)
            if time.monotonic() > self._purge_at:
                self._purge_at = time.monotonic() + _PURGE_EVERY
                purge(get_engine(), datetime.now(UTC) - settings.webhook_log_keep)
        except (SQLAlchemyError, RQJobsError) as error:
            self._pause = _EVERY_WHILE_DOWN
            self._put_back(rows, health, error)

    def _put_back(self, rows: list[Delivery], health: dict[str, Health], error: Exception) -> None:
        lost = max(0, len(rows) + len(self._rows) - _KEPT)
        self._rows[:0] = rows[lost:]
        for item in health.values():
            known = self._health.get(item.key)
            self._health[item.key] = item if known is None else _together(item, known)
        reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
        event(logging.ERROR, "the delivery log cannot be written", error=reason, waiting=len(self._rows), lost=lost)

    def _tell(self, disabled: list[str]) -> None:
        reasons = {endpoint.name: endpoint.reason or "" for endpoint in list_endpoints(get_engine())}
        for name in disabled:
            call_hooks(name, reasons.get(name, ""))


def _together(older: Health, newer: Health) -> Health:
    return Health(
        newer.key,
        newer.url,
        older.succeeded or newer.succeeded,
        min(older.first_ms, newer.first_ms),
        max(older.last_ms, newer.last_ms),
        older.gone or newer.gone,
    )
