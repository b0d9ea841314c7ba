"""DataExportJob: the rows of one user as a file."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from rqjobs.jobs.base import JobModel, Name, json_object
from rqjobs.jobs.email import EmailAddress


class DataExportJob(JobModel):
    """Write the rows of ``data_type`` that belong to ``user_id`` to a file."""

    queue: ClassVar[str] = "data-export"

    user_id: Name
    """The owner of the rows, the only user who may download the file."""
    export_type: Literal["csv", "json", "ndjson", "excel", "pdf"]
    """The file's format."""
    data_type: Annotated[str, Field(strict=True, pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    """The source: ``contacts``, ``bookings``, ``qr_scans`` or one that the app registered."""
    filters: Annotated[dict[str, Any], json_object("filters")] = Field(default_factory=dict)
    """The filters that select rows, as the source defines them."""
    notify: EmailAddress | None = None
    """The address to which the link is mailed (template ``export-ready``); by default no mail is sent."""

    def label(self) -> str:
        """``export contacts as csv``."""
        return f"export {self.data_type} as {self.export_type}"
