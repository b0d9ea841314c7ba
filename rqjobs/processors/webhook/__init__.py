"""Webhooks: signed POST requests, with a delivery log, and a circuit breaker for each destination."""

from rqjobs.processors.webhook.admission import admit
from rqjobs.processors.webhook.endpoint_cache import on_endpoint_disabled
from rqjobs.processors.webhook.processor import deliver

__all__ = ["admit", "deliver", "on_endpoint_disabled"]
