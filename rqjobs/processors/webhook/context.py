"""The objects that all deliveries of a process share, made once from the settings."""

from __future__ import annotations

import logging
from typing import NamedTuple
from urllib.parse import urlsplit

from rqjobs.config.logs import event
from rqjobs.config.settings import Settings, get_settings
from rqjobs.database.webhook_endpoints import Endpoint
from rqjobs.jobs import WebhookJob
from rqjobs.policies import get_policy
from rqjobs.processors.webhook.destinations import Destinations
from rqjobs.processors.webhook.endpoint_cache import KnownEndpoints
from rqjobs.processors.webhook.host_names import Names
from rqjobs.security.signing import MOST_SIGNATURES, parse_secret
from rqjobs.security.ssrf import Guard, Target

_TARGETS_KEPT = 10_000


class Place(NamedTuple):
    """The target of a job, with its destination and breakers."""

    target: Target
    destination: str
    """The name of the destination, by which slots are counted."""
    breakers: tuple[str, ...]
    """The names of the circuit breakers that the job passes, the origin's first."""


class Context:
    """The settings in the form that deliveries need."""

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
        self.names = Names(settings.webhook_nameservers)
        self._told_unsigned = False
        self._targets: dict[str, Target] = {}
        self._places: dict[tuple[str, str, str], Place] = {}

    def tell_unsigned(self) -> None:
        """Logs, once, that webhooks are sent unsigned."""
        if not self._told_unsigned:
            self._told_unsigned = True
            event(logging.WARNING, "webhooks are sent unsigned", fix="set WEBHOOK_SIGNING_SECRET")

    def place(self, job: WebhookJob, endpoint: Endpoint | None) -> Place:
        """Returns the target of ``job``. A registered endpoint may have a new URL since the job was enqueued.

        Without an endpoint, the job has a breaker for its URL and one for its webhook_id at the origin. So one tenant's
        path on a shared host does not affect another's, and a host that is silent for many URLs of a subscription is
        noticed.

        Raises:
            TargetRefused: the URL itself is not allowed.
        """
        named = endpoint is not None and job.endpoint is not None
        key = (endpoint.url, endpoint.name, "") if named and endpoint else ("", job.webhook_id, job.url)
        place = self._places.get(key)
        if place is None:
            if len(self._places) >= _TARGETS_KEPT:
                self._places.clear()
            place = self._places[key] = self._make_place(job, endpoint if named else None)
        return place

    def _make_place(self, job: WebhookJob, endpoint: Endpoint | None) -> Place:
        if endpoint is not None:
            target = self.target(endpoint.url)
            return Place(target, endpoint.name, (target.origin, endpoint.name))
        target = self.target(job.url)
        url = target.origin + (urlsplit(target.url).path or "/")
        subscription = f"{target.origin} {job.webhook_id}"
        return Place(target, f"{url} {job.webhook_id}", (target.origin, url, subscription))

    def target(self, url: str) -> Target:
        """Returns ``url`` as the guard's target.

        Raises:
            TargetRefused: the URL itself is not allowed.
        """
        known = self._targets.get(url)
        if known is None:
            if len(self._targets) >= _TARGETS_KEPT:
                self._targets.clear()
            known = self._targets[url] = self.guard.check_url(url)
        return known


_current: Context | None = None


def context() -> Context:
    """Returns the context for the current settings."""
    global _current  # noqa: PLW0603
    settings = get_settings()
    if _current is None or _current.settings is not settings:
        if _current is not None:
            _current.names.close()
        _current = Context(settings)
    return _current
