"""What every delivery of a process shares, made from the settings once."""

from __future__ import annotations

import logging

from rqjobs.guard import Guard, Target
from rqjobs.logs import event
from rqjobs.processors.webhook.destinations import Destinations
from rqjobs.processors.webhook.endpoints import KnownEndpoints
from rqjobs.queues import get_policy
from rqjobs.settings import Settings, get_settings
from rqjobs.signing import MOST_SIGNATURES, parse_secret

_TARGETS_KEPT = 10_000


class Context:
    """The settings in the form that the hot path wants them in."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.guard = Guard.build(settings.webhook_allow, settings.webhook_ports)
        secrets = settings.webhook_signing_secret[:MOST_SIGNATURES]
        self.keys = [parse_secret(secret.get_secret_value()) for secret in secrets]
        legacy = settings.webhook_legacy_secret
        self.legacy_key = legacy.get_secret_value().encode() if legacy is not None else None
        self.timeout = settings.webhook_timeout.total_seconds()
        self.ca_file = str(settings.webhook_ca_file) if settings.webhook_ca_file else None
        self.endpoints = KnownEndpoints()
        self.destinations = Destinations(get_policy("webhooks").concurrency)
        self._told_unsigned = False
        self._targets: dict[str, Target] = {}

    def tell_unsigned(self) -> None:
        """Says once that there is nothing to sign with."""
        if not self._told_unsigned:
            self._told_unsigned = True
            event(logging.WARNING, "webhooks are sent unsigned", mend="set WEBHOOK_SIGNING_SECRET")

    def target(self, url: str) -> Target:
        """``url`` as the guard takes it apart.

        Raises:
            TargetRefused: its text alone forbids it.
        """
        known = self._targets.get(url)
        if known is None:
            if len(self._targets) >= _TARGETS_KEPT:
                self._targets.clear()
            known = self._targets[url] = self.guard.check_url(url)
        return known


_current: Context | None = None


def context() -> Context:
    """The context of the present settings."""
    global _current  # noqa: PLW0603
    settings = get_settings()
    if _current is None or _current.settings is not settings:
        _current = Context(settings)
    return _current
