"""For RQJOBS_IMPORT: a worker that looks only when it is told, or when it knows that a job is due."""

from __future__ import annotations

from rqjobs.worker import loop

loop.POLL_INTERVAL = loop.SCHEDULE_INTERVAL = 3600.0
