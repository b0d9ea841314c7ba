"""ManyChatSyncJob: one change to a contact, a tag or a field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ValidationError, model_validator
from pydantic_core import PydanticCustomError

from rqjobs.jobs.base import JobModel, Name, describe_faults, json_object
from rqjobs.jobs.manychat_data import (
    ContactCreate,
    ContactDelete,
    ContactUpdate,
    FieldCreate,
    FieldDelete,
    FieldUpdate,
    Reference,
    SyncData,
    TagCreate,
    TagDelete,
    TagUpdate,
)

_MODELS: dict[tuple[str, str], type[SyncData]] = {
    ("contact", "create"): ContactCreate,
    ("contact", "update"): ContactUpdate,
    ("contact", "delete"): ContactDelete,
    ("tag", "create"): TagCreate,
    ("tag", "update"): TagUpdate,
    ("tag", "delete"): TagDelete,
    ("field", "create"): FieldCreate,
    ("field", "update"): FieldUpdate,
    ("field", "delete"): FieldDelete,
}

_CONTACT_KEYS = frozenset(
    spelling
    for name, field in Reference.model_fields.items()
    for spelling in (name, field.alias, *getattr(field.validation_alias, "choices", ()))
)


def unsupported(kind: str, action: str, data: Mapping[str, Any]) -> str | None:
    """Returns why ManyChat's API cannot do this, and what can be done instead; None if it can."""
    of_contact = any(data.get(str(key)) is not None for key in _CONTACT_KEYS)
    match kind, action:
        case "contact", "delete" if not (data.get("soft_delete") or data.get("softDelete")):
            return (
                "unsupported: ManyChat's API has no call that deletes or unsubscribes a contact. Pass soft_delete=true"
                " to opt the contact out of SMS and email and tag it 'deleted', or delete it in ManyChat"
            )
        case "tag", "update" if not of_contact:
            return (
                "unsupported: ManyChat's API cannot rename a tag. Create the new tag, then update each contact's tags"
                " with 'add' and 'remove' (and a subscriber_id, email or phone), or rename it in ManyChat"
            )
        case "tag", "delete" if not of_contact and not (data.get("delete_from_page") or data.get("deleteFromPage")):
            return (
                "refused: without a contact this deletes the tag itself and takes it off everyone, which cannot be"
                " undone. Give a contact (subscriber_id, email or phone), or pass delete_from_page=true"
            )
        case "field", "update" if not of_contact:
            return (
                "unsupported: ManyChat's API cannot change a field's definition. Create another field, or change it in"
                " ManyChat; to set a value give a contact (subscriber_id, email or phone)"
            )
        case "field", "delete" if not of_contact:
            return (
                "unsupported: ManyChat's API cannot delete a field's definition. Delete it in ManyChat; to clear a"
                " contact's value give the contact (subscriber_id, email or phone)"
            )
    return None


class ManyChatSyncJob(JobModel):
    """Change one contact, tag or field of ManyChat to the state that ``data`` describes."""

    queue: ClassVar[str] = "manychat-sync"

    type: Literal["contact", "tag", "field"]
    """The kind of thing to change."""
    action: Literal["create", "update", "delete"]
    """The kind of change."""
    tool_id: Name
    """The id of the app's tool, which selects the ManyChat account."""
    data: Annotated[dict[str, Any], json_object("data")]
    """The desired state: see :mod:`rqjobs.jobs.manychat_data`, which has a model for each (type, action)."""
    merge: bool = False
    """Merge waiting changes of the same contact into one: for each field and tag the one enqueued last is applied, so
    ten updates in a second cost one set of calls."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuses an action that the API does not support, and ``data`` that lacks a value."""
        if reason := unsupported(self.type, self.action, self.data):
            raise _fault(f"{self.type} {self.action}: {reason}")
        model = _MODELS[self.type, self.action]
        try:
            details = self.details()
        except ValidationError as error:
            raise _fault("; ".join(describe_faults(model, error, "data."))) from None
        if self.merge and not (isinstance(details, Reference) and details.given):
            raise _fault("'merge': only changes of one contact can be merged")
        return self

    def details(self) -> SyncData:
        """``data`` as the model of this (type, action)."""
        return _MODELS[self.type, self.action].model_validate(self.data)

    def label(self) -> str:
        """``manychat update contact for tool_1``."""
        return f"manychat {self.action} {self.type} for {self.tool_id}"


def _fault(text: str) -> PydanticCustomError:
    return PydanticCustomError("manychat", "{faults}", {"faults": text, "whole": True})
