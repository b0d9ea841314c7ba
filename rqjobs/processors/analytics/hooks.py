"""Functions of the app that run after an event is stored, for example to enqueue a webhook or sync a contact."""

from __future__ import annotations

from collections.abc import Callable

from rqjobs.processors.analytics.events import QREvent

Hook = Callable[[QREvent], object]

_hooks: list[Hook] = []


def on_event(hook: Hook) -> Hook:
    """Registers ``hook``, which is called with each new event; usable as a decorator. RQJOBS_IMPORT imports its module.

    It is called after the event is committed, and again if the job runs again before it is done; it is not called for
    duplicates that producers send. So enqueue with a ``job_id`` made from ``event.event_id``. If it raises an
    exception, the job runs again; the event is not counted twice.
    """
    if hook not in _hooks:
        _hooks.append(hook)
    return hook


def call_hooks(event: QREvent) -> None:
    """Calls every registered hook."""
    for hook in _hooks:
        hook(event)
