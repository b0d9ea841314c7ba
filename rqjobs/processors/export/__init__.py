"""The data export: writes the rows of one user to a file, publishes it, and returns a link to it."""

from rqjobs.processors.export.links import LinkRefused, make_link, open_link
from rqjobs.processors.export.processor import export
from rqjobs.processors.export.purging import purge
from rqjobs.processors.export.records import Export, find, recent

__all__ = ["Export", "LinkRefused", "export", "find", "make_link", "open_link", "purge", "recent"]
