"""Email: a template in, one mail out."""

from rqjobs.processors.email.send import admit, send

__all__ = ["admit", "send"]
