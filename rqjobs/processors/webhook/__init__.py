"""Webhooks: one signed POST, its outcome by status code, every attempt in a log; a dead receiver holds up no other."""

from rqjobs.processors.webhook.admission import admit
from rqjobs.processors.webhook.endpoint_cache import on_endpoint_disabled
from rqjobs.processors.webhook.processor import deliver

__all__ = ["admit", "deliver", "on_endpoint_disabled"]
