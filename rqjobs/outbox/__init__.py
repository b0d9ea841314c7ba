"""The transactional outbox: jobs are written in a transaction of the app, then moved to Redis."""
