"""The transactional outbox: jobs written with the app's own transaction, then moved to Redis."""
