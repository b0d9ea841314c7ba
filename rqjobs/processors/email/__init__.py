"""Email: renders a template and sends one mail."""

from rqjobs.processors.email.processor import admit, send

__all__ = ["admit", "send"]
