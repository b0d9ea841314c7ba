"""What the app does when something happens to a code: trigger a webhook, sync a contact."""

from __future__ import annotations

from collections.abc import Callable

from rqjobs.processors.analytics.events import QREvent

Hook = Callable[[QREvent], object]

_hooks: list[Hook] = []


def on_event(hook: Hook) -> Hook:
    """Registers ``hook`` (a decorator); RQJOBS_IMPORT makes workers import its module.

    It is called once the event is committed, and again if the job has to run again before it is done; duplicates
    that producers send are left out. So enqueue with a ``job_id`` made from ``event.event_id``. What it raises
    makes the job run again; the event is not counted twice.
    """
    if hook not in _hooks:
        _hooks.append(hook)
    return hook


def call_hooks(event: QREvent) -> None:
    """Calls every registered hook."""
    for hook in _hooks:
        hook(event)
