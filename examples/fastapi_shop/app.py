"""A small FastAPI shop with SQLAlchemy: the booking and its webhook are one transaction (the outbox)."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import Column, Integer, MetaData, Table, insert

from rqjobs import (
    QRAnalyticsJob,
    WebhookJob,
    aenqueue_qr_analytics,
    aqueue_health,
    enqueue_webhook,
)
from rqjobs.database import get_engine
from rqjobs.database.schema import ensure_schema
from rqjobs.integrations.fastapi import with_rqjobs

metadata = MetaData()
bookings = Table("shop_bookings", metadata, Column("id", Integer, primary_key=True), Column("amount", Integer))


@asynccontextmanager
async def tables(_app: FastAPI) -> AsyncIterator[None]:
    ensure_schema(get_engine())
    metadata.create_all(get_engine())
    yield


app = FastAPI(lifespan=with_rqjobs(tables))


class Booking(BaseModel):
    id: int
    amount: int


@app.post("/bookings", status_code=202)
def book(booking: Booking) -> dict[str, str]:
    """Commits the row and the job together; a worker then moves the job to Redis."""
    hook = WebhookJob(
        webhook_id="wh_1",
        event="booking.created",
        url=os.environ["SHOP_WEBHOOK_URL"],
        payload=booking.model_dump(),
    )
    with get_engine().begin() as transaction:
        transaction.execute(insert(bookings).values(**booking.model_dump()))
        job = enqueue_webhook(hook, outbox=transaction)
    return {"webhook": job.id}


@app.get("/q/{code}")
async def scan(code: str) -> dict[str, str]:
    """A coroutine: the event loop is not blocked while it waits for Redis."""
    job = await aenqueue_qr_analytics(QRAnalyticsJob(qr_code_id=code, event="scan", data={"user_id": "u1"}))
    return {"event": job.id}


@app.get("/health")
async def health() -> dict[str, int]:
    return {queue.name: queue.waiting for queue in await aqueue_health()}
