"""What deliveries know of endpoints: looked up in batches, believed for some seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

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
    for too long: tell its owner. Register it in a module named in RQJOBS_IMPORT; usable as a decorator.
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


class KnownEndpoints:
    """A cache in front of the table."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, Endpoint | None, list[bytes]]] = {}

    def load(self, keys: Iterable[str]) -> None:
        """Makes sure that all of ``keys`` are known, by one SELECT at most.

        Raises:
            SQLAlchemyError: the database cannot be asked.
        """
        now = time.monotonic()
        missing = {key for key in keys if (entry := self._known.get(key)) is None or entry[0] < now}
        if not missing:
            return
        if len(self._known) > _KEPT:
            self._known.clear()
        found = find_endpoints(get_engine(), missing)
        for key in missing:
            endpoint = found.get(key)
            signing = [parse_secret(secret) for secret in endpoint.secrets[:MOST_SIGNATURES]] if endpoint else []
            self._known[key] = (now + BELIEVED_FOR, endpoint, signing)

    def get(self, key: str) -> tuple[Endpoint | None, list[bytes]]:
        """The endpoint of ``key``, None if there is none, and its own signing keys."""
        entry = self._known.get(key)
        if entry is None or entry[0] < time.monotonic():
            self.load([key])
            entry = self._known[key]
        return entry[1], entry[2]

    def forget(self, key: str) -> None:
        """Asks the table again at the next call."""
        self._known.pop(key, None)
