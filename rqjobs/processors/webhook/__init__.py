"""Webhooks: one signed POST, its outcome by protocol."""

from rqjobs.processors.webhook.deliver import deliver

__all__ = ["deliver"]
