"""A small Flask shop: a booking sends a webhook to a customer and makes a receipt, in the background."""

import os

from flask import Flask, request, session
from pydantic import BaseModel

import rqjobs
from rqjobs import WebhookJob, enqueue_webhook, queue_health
from rqjobs.integrations.flask import RQJobs

extension = RQJobs(
    dashboard_access=lambda: session.get("role") == "admin",
    owner=lambda: session.get("user_id"),
)


class Receipt(BaseModel):
    booking: int
    amount: float


@rqjobs.job(queue="receipts", attempts=5)
def make_receipt(receipt: Receipt) -> str:
    """The shop's own job: with three lines it has a queue, retries, dead letters and a page in the dashboard."""
    return f"receipt {receipt.booking}: {receipt.amount:.2f}"


def create_app() -> Flask:
    app = Flask(__name__)
    app.config.from_mapping(SECRET_KEY=os.environ.get("SECRET_KEY", "for development only"))
    extension.init_app(app)

    @app.post("/bookings")
    def book():
        booking = request.get_json()
        hook = enqueue_webhook(
            WebhookJob(webhook_id="wh_1", event="booking.created", url=os.environ["SHOP_WEBHOOK_URL"], payload=booking),
            attempts=5,
        )
        receipt = make_receipt.enqueue({"booking": booking["id"], "amount": booking["amount"]})
        return {"webhook": hook.id, "receipt": receipt.id}, 202

    @app.post("/login")  # stands for the login that your app has
    def login():
        session.update(request.get_json())
        return {}

    @app.get("/health")
    def health():
        return {queue.name: queue.waiting for queue in queue_health()}

    return app
