"""Monitoring of queues and workers: health, metrics, alerts, and the checks of ``rqjobs doctor``."""
