"""ManyChatSyncJob: one change to a contact, a tag or a field."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from rqjobs.jobs.base import JobModel, Name, json_object


class ManyChatSyncJob(JobModel):
    """Bring one contact, tag or field of ManyChat to the state that ``data`` says."""

    queue: ClassVar[str] = "manychat-sync"

    type: Literal["contact", "tag", "field"]
    """What is changed."""
    action: Literal["create", "update", "delete"]
    """How it is changed."""
    tool_id: Name
    """The tool of yours whose ManyChat account is meant."""
    data: Annotated[dict[str, Any], json_object("data")]
    """The wanted state."""

    def label(self) -> str:
        """``manychat update contact for tool_1``."""
        return f"manychat {self.action} {self.type} for {self.tool_id}"
