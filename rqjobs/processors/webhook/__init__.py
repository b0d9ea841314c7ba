"""Webhooks: one signed POST, its outcome by protocol, every attempt in a log, one dead receiver nobody's trouble."""

from rqjobs.processors.webhook.admission import admit
from rqjobs.processors.webhook.deliver import deliver
from rqjobs.processors.webhook.endpoints import on_endpoint_disabled

__all__ = ["admit", "deliver", "on_endpoint_disabled"]
