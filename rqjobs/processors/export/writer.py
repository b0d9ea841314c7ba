"""What every writer of a format is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from rqjobs.processors.export.values import Batch


@dataclass(frozen=True, kw_only=True)
class Heading:
    """What is known of a file before its first row."""

    columns: Sequence[str]
    """The names of the columns, in order."""
    title: str
    """The title of the file for people: ``Bookings``."""
    filters: str = ""
    """Which of the rows, in one line."""
    created_at: datetime
    """When the export was begun, in UTC."""


class Writer(ABC):
    """Writes batches of rows to a file; what it holds in memory does not grow with their number."""

    @abstractmethod
    def write(self, batch: Batch) -> None:
        """Appends the rows of ``batch``."""

    @abstractmethod
    def close(self) -> None:
        """Completes the file; its handle stays open and is the caller's."""

    def abandon(self) -> None:  # noqa: B027  # most have nothing
        """Lets go of what :meth:`close` would have; the file is of no use."""
