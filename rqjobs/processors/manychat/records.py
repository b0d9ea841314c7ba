"""The responses of ManyChat's API as models. Many values may be null, and ids are strings or integers."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rqjobs.errors import DependencyUnavailable, RQJobsError


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Tag(_Record):
    """A tag of the page."""

    id: int
    name: str


class CustomField(_Record):
    """The definition of a custom field."""

    id: int
    name: str
    type: str | None = None
    """``text``, ``number``, ``date``, ``datetime`` or ``boolean``."""


class FieldValue(_Record):
    """The value of a custom field of a contact."""

    id: int
    value: Any = None


class Subscriber(_Record):
    """A contact."""

    id: int
    first_name: str | None = None
    last_name: str | None = None
    gender: str | None = None
    email: str | None = None
    phone: str | None = None
    whatsapp_phone: str | None = None
    tags: list[Tag] | None = None
    custom_fields: list[FieldValue] | None = Field(None)

    def value_of(self, field_id: int) -> Any:
        """Returns the value of a custom field; None if it has none."""
        return next((one.value for one in self.custom_fields or () if one.id == field_id), None)


class ManyChatRefused(RQJobsError):
    """ManyChat refuses the request, and would refuse it again.

    Attributes:
        path: the endpoint.
        messages: all messages of the response.
    """

    def __init__(self, path: str, messages: list[str]) -> None:
        self.path = path
        self.messages = tuple(messages)
        super().__init__(f"ManyChat refuses {path}: {'; '.join(messages)}")

    @property
    def already_exists(self) -> bool:
        """Whether the object exists already, because another client has created it."""
        return any("already exist" in message.lower() for message in self.messages)

    @property
    def missing(self) -> bool:
        """Whether the object does not exist (any more)."""
        return any(words in message.lower() for message in self.messages for words in ("not exist", "not found"))


class ManyChatUnavailable(DependencyUnavailable):
    """ManyChat does not answer, or another server does at MANYCHAT_API_URL, or it refuses a token (the scope)."""

    def __init__(self, reason: str, *, scope: str = "") -> None:
        super().__init__("ManyChat", reason, scope=scope)


class ManyChatUnclear(RQJobsError):
    """A response of ManyChat differs from the documented form; retried by the queue's policy."""
