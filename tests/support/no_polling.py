"""For RQJOBS_IMPORT: a worker that looks only when it is told, or when it knows that a job is due."""

from __future__ import annotations

from rqjobs.worker import loop

loop.POLL = loop.RARELY = 3600.0
