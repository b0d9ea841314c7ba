"""The dashboard: what runs, what died and why, and the mend; see :func:`create_app`."""

from rqjobs.web.app import create_app

__all__ = ["create_app"]
