"""Dead jobs: listed, grouped by cause, requeued in bulk, deleted."""
