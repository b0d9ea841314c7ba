"""Batches and chains: jobs whose progress is counted together, and jobs that start when others are done."""

from __future__ import annotations

from rqjobs.batches.create import enqueue_batch, enqueue_chain
from rqjobs.batches.records import Batch, BatchProgress, BatchRecord, get_batch, list_batches

__all__ = ["Batch", "BatchProgress", "BatchRecord", "enqueue_batch", "enqueue_chain", "get_batch", "list_batches"]
