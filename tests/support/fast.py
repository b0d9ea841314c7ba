"""For RQJOBS_IMPORT: a worker that takes itself for a fast one, as it does on a machine ten times as fast."""

from __future__ import annotations

from rqjobs.worker import batching

batching.BUSY_RATE = 50.0
