"""What the queues and workers report: health, metrics, alerts, checks."""
