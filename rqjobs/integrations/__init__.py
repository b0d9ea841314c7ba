"""Integrations with Flask, Django and FastAPI, and an endpoint for platforms that offer only a cron."""
