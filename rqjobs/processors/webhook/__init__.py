"""Webhooks: one signed POST, its outcome by protocol, every attempt in a log, one dead receiver nobody's trouble."""

from rqjobs.processors.webhook.admission import admit
from rqjobs.processors.webhook.endpoint_cache import on_endpoint_disabled
from rqjobs.processors.webhook.processor import deliver

__all__ = ["admit", "deliver", "on_endpoint_disabled"]
