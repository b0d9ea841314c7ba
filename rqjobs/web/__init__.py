"""The dashboard: queues, jobs and dead letters, with actions on them; see :func:`create_app`."""

from rqjobs.web.app import create_app

__all__ = ["create_app"]
