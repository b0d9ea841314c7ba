"""Checked by mypy, never run: the public names as users write them."""

from datetime import timedelta

from rqjobs.backoff import exponential, fixed
from rqjobs.jobs import WebhookJob

job = WebhookJob(webhook_id="wh_1", event="qr.scanned", url="https://example.com", payload={"code": "A"})
backoff = exponential(timedelta(seconds=5), jitter=0.1)
steady = fixed("10s")
