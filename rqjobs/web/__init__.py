"""The dashboard: queues, jobs, dead letters and what to do about them; see :func:`create_app`."""

from rqjobs.web.app import create_app

__all__ = ["create_app"]
