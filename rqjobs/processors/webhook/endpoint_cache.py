"""The endpoints of deliveries, read in batches and cached for a few seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from rqjobs.config.encryption import UnreadableSecret
from rqjobs.config.logs import event
from rqjobs.database import get_engine
from rqjobs.database.outages import database_outages
from rqjobs.database.webhook_endpoints import Endpoint, find_endpoints
from rqjobs.database.webhook_tables import endpoint_key
from rqjobs.jobs import WebhookJob
from rqjobs.security.masking import without_path
from rqjobs.security.signing import MOST_SIGNATURES, parse_secret

BELIEVED_FOR = 5.0
"""Seconds for which an endpoint is cached; after it, a change by another process takes effect."""
_KEPT = 50_000

DisabledHook = Callable[[str, str], object]
_hooks: list[DisabledHook] = []


def on_endpoint_disabled(hook: DisabledHook) -> DisabledHook:
    """Registers ``hook(name, reason)``, called in the worker when an endpoint is disabled; usable as a decorator.

    An endpoint is disabled because it is gone (410), or has failed for too long; the hook can inform its owner.
    Register it in a module of RQJOBS_IMPORT.
    """
    _hooks.append(hook)
    return hook


def call_hooks(name: str, reason: str) -> None:
    """Calls all hooks; an error of one is logged, and the others are still called."""
    event(logging.WARNING, "endpoint disabled", endpoint=without_path(name), reason=reason)
    for hook in _hooks:
        try:
            hook(name, reason)
        except Exception as error:  # noqa: BLE001  # the app's code must not stop deliveries
            event(logging.ERROR, "a hook for disabled endpoints failed", error=repr(error))


def key_of(job: WebhookJob) -> str:
    """Returns the key of the job's endpoint in the tables: its name if the job has one, otherwise the URL.

    A URL is never the key of a registered endpoint, even if one is registered with it.
    """
    return job.endpoint or endpoint_key(job.url)


class _Known(NamedTuple):
    until: float
    """The expiry, ``time.monotonic()``."""
    endpoint: Endpoint | None
    signing: list[bytes] | UnreadableSecret


def _signing_keys(endpoint: Endpoint | None) -> list[bytes] | UnreadableSecret:
    try:
        return [parse_secret(secret) for secret in endpoint.secrets[:MOST_SIGNATURES]] if endpoint else []
    except UnreadableSecret as error:
        return error


class KnownEndpoints:
    """A cache of the table of endpoints."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def load(self, keys: Iterable[str]) -> None:
        """Loads those of ``keys`` that are not cached, with at most one SELECT.

        Raises:
            SQLAlchemyError: the database cannot be read.
        """
        now = time.monotonic()
        missing = {key for key in keys if (entry := self._known.get(key)) is None or entry.until < now}
        if not missing:
            return
        if len(self._known) > _KEPT:
            self._known.clear()
        found = find_endpoints(get_engine(), missing)
        for key in missing:
            endpoint = found.get(key)
            self._known[key] = _Known(now + BELIEVED_FOR, endpoint, _signing_keys(endpoint))

    def get(self, key: str) -> Endpoint | None:
        """Returns the endpoint of ``key``, None if there is none.

        Raises:
            DependencyUnavailable: it is not cached, and the database does not answer.
        """
        return self._entry(key).endpoint

    def signing_keys(self, key: str) -> list[bytes]:
        """Returns the endpoint's own signing keys, newest first; an empty list if it has none.

        Raises:
            UnreadableSecret: they are encrypted under a key that this process does not have; no other key may sign
                instead.
        """
        found = self._entry(key).signing
        if isinstance(found, UnreadableSecret):
            raise UnreadableSecret(str(found))
        return found

    def _entry(self, key: str) -> _Known:
        entry = self._known.get(key)
        if entry is None or entry.until < time.monotonic():
            with database_outages():
                self.load([key])
            entry = self._known[key]
        return entry

    def forget(self, key: str) -> None:
        """Removes ``key`` from the cache, so that the next call reads the table."""
        self._known.pop(key, None)
