"""The base class of the writers of all formats."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from rqjobs.processors.export.values import Batch


@dataclass(frozen=True, kw_only=True)
class Heading:
    """The properties of a file that are known before its first row."""

    columns: Sequence[str]
    """The names of the columns, in order."""
    title: str
    """The title that readers see: ``Bookings``."""
    filters: str = ""
    """The filters of the export, in one line of text."""
    created_at: datetime
    """The start of the export, in UTC."""


class Writer(ABC):
    """Writes batches of rows to a file; its memory does not grow with the number of rows."""

    @abstractmethod
    def write(self, batch: Batch) -> None:
        """Appends the rows of ``batch``."""

    @abstractmethod
    def close(self) -> None:
        """Completes the file; the caller closes the handle."""

    def abandon(self) -> None:  # noqa: B027  # most have nothing
        """Discards the file; releases what :meth:`close` would have released."""
