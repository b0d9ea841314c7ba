"""Email: a template in, one mail out."""

from rqjobs.processors.email.processor import admit, send

__all__ = ["admit", "send"]
