"""An app with an event that kills the worker process: before it is stored, or in the app's own hook."""

from __future__ import annotations

import os
import signal
from typing import Any

from rqjobs.processors.analytics import QREvent, on_event, processor

_make_event = processor.make_event


def _dies_here(where: str) -> bool:
    return os.environ.get("POISON") == where


def _deadly(job: Any, *rest: Any) -> QREvent:
    if job.qr_code_id == "poison" and _dies_here("before"):
        os.kill(os.getpid(), signal.SIGKILL)
    return _make_event(job, *rest)


processor.make_event = _deadly


@on_event
def hook(event: QREvent) -> None:
    """Kills the process that the poisonous event has come to."""
    if event.qr_code_id == "poison" and _dies_here("hook"):
        os.kill(os.getpid(), signal.SIGKILL)
