"""The endpoints of deliveries: read in batches, and cached for some seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from rqjobs.config.encryption import UnreadableSecret
from rqjobs.config.logs import event
from rqjobs.database import get_engine
from rqjobs.database.webhook_endpoints import Endpoint, find_endpoints
from rqjobs.database.webhook_tables import endpoint_key
from rqjobs.jobs import WebhookJob
from rqjobs.security.masking import without_path
from rqjobs.security.signing import MOST_SIGNATURES, parse_secret

BELIEVED_FOR = 5.0
"""Seconds after which a change by the command line, or by another worker, is noticed."""
_KEPT = 50_000

DisabledHook = Callable[[str, str], object]
_hooks: list[DisabledHook] = []


def on_endpoint_disabled(hook: DisabledHook) -> DisabledHook:
    """Calls ``hook(name, reason)`` in the worker when an endpoint is disabled because it is gone, or has failed
    for too long, for instance to inform its owner. Register it in a module of RQJOBS_IMPORT; usable as a decorator.
    """  # noqa: D205
    _hooks.append(hook)
    return hook


def call_hooks(name: str, reason: str) -> None:
    """Calls every hook; one that fails is logged and stops nothing."""
    event(logging.WARNING, "endpoint disabled", endpoint=without_path(name), reason=reason)
    for hook in _hooks:
        try:
            hook(name, reason)
        except Exception as error:  # noqa: BLE001  # the app's code must not stop deliveries
            event(logging.ERROR, "a hook for disabled endpoints failed", error=repr(error))


def key_of(job: WebhookJob) -> str:
    """The key of the job's endpoint in the tables: the name that the job gives, else its URL.

    A URL is never the key of a registered endpoint, even if one is registered with it.
    """
    return job.endpoint or endpoint_key(job.url)


class _Known(NamedTuple):
    until: float
    """``time.monotonic()``."""
    endpoint: Endpoint | None
    signing: list[bytes] | UnreadableSecret


def _signing_keys(endpoint: Endpoint | None) -> list[bytes] | UnreadableSecret:
    try:
        return [parse_secret(secret) for secret in endpoint.secrets[:MOST_SIGNATURES]] if endpoint else []
    except UnreadableSecret as error:
        return error


class KnownEndpoints:
    """A cache in front of the table."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def load(self, keys: Iterable[str]) -> None:
        """Loads those of ``keys`` that are not cached, by one SELECT at most.

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
        """The endpoint of ``key``, None if there is none."""
        return self._entry(key).endpoint

    def signing_keys(self, key: str) -> list[bytes]:
        """The own signing keys of the endpoint of ``key``, newest first; none if it has none.

        Raises:
            UnreadableSecret: they are encrypted under a key that this process does not have. Nothing else may sign.
        """
        found = self._entry(key).signing
        if isinstance(found, UnreadableSecret):
            raise UnreadableSecret(str(found))
        return found

    def _entry(self, key: str) -> _Known:
        entry = self._known.get(key)
        if entry is None or entry.until < time.monotonic():
            self.load([key])
            entry = self._known[key]
        return entry

    def forget(self, key: str) -> None:
        """Empties the cache: the next call reads the table."""
        self._known.pop(key, None)
