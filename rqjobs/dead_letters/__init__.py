"""Dead letters: lists, failure groups, bulk requeue, purge."""
