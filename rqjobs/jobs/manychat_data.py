"""The models of ``ManyChatSyncJob.data``, one for each (type, action). Keys in snake_case or camelCase."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    Field,
    PlainValidator,
    StringConstraints,
    model_validator,
)
from pydantic.alias_generators import to_camel

from rqjobs.jobs.base import STRICT

_MAX_NAME = 255
_PHONE = re.compile(r"\+[1-9]\d{6,14}")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s.]+")


def _id(value: object) -> object:
    """Converts an id: ManyChat sends ids as strings and accepts integers, so both are accepted."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value


def _phone(value: str) -> str:
    compact = re.sub(r"[\s().-]", "", value)
    if not _PHONE.fullmatch(compact):
        raise ValueError("not a phone number in international form; write +14155550123")
    return compact


def _email(value: str) -> str:
    if not _EMAIL.fullmatch(value) or not value.isprintable():
        raise ValueError("not an address; write ada@example.com")
    return value


def _tag_or_field(value: object) -> object:
    named = isinstance(value, str) and 1 <= len(value) <= _MAX_NAME and value.isprintable()
    if not named and (not isinstance(value, int) or isinstance(value, bool) or value <= 0):
        raise ValueError("neither an id (a positive integer) nor a name of 1 to 255 characters")
    return value


def _value(value: object) -> object:
    if not isinstance(value, str | bool | int | float | None):
        raise ValueError("a field's value is a string, a number, a boolean or None (which clears it)")  # noqa: TRY004  # pydantic wants it
    return value


def _named(*names: str) -> AliasChoices:
    return AliasChoices(*dict.fromkeys(spelling for name in names for spelling in (name, to_camel(name))))


Id = Annotated[int, BeforeValidator(_id), Field(gt=0)]
"""A ManyChat id: a positive integer, or its digits."""
Text = Annotated[str, StringConstraints(min_length=1, max_length=_MAX_NAME, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""A name: 1 to 255 characters, none of them a control character."""
Phone = Annotated[str, AfterValidator(_phone)]
"""A phone number in E.164: ``+14155550123``. Blanks, dots, dashes and parentheses are removed."""
Email = Annotated[str, AfterValidator(_email)]
"""One mail address."""
TagOrField = Annotated[int | str, PlainValidator(_tag_or_field)]
"""A tag or a field: its id as an integer, or its name."""
Value = Annotated[str | bool | int | float | None, PlainValidator(_value)]
"""The value of a field; None clears it. Dates are ``2026-07-18``, datetimes ``2026-07-18T12:00:00+00:00``."""


class _Data(BaseModel):
    model_config = STRICT


class Lookup(_Data):
    """Finds a contact by a custom field, which must be of type text or number."""

    field: TagOrField
    """The field's name or id."""
    value: Text | int
    """Its exact value."""


class Reference(_Data):
    """Identifies a contact by id, custom field, email, phone or WhatsApp number.

    They are tried in this order; the first match is used.
    """

    subscriber_id: Id | None = Field(None, validation_alias=_named("subscriber_id", "contact_id", "manychat_id"))
    lookup: Lookup | None = None
    email: Email | None = None
    phone: Phone | None = None
    whatsapp_phone: Phone | None = None

    @property
    def given(self) -> bool:
        """Whether at least one way to find a contact is given."""
        return any((self.subscriber_id, self.lookup, self.email, self.phone, self.whatsapp_phone))

    @property
    def identity(self) -> str:
        """The first way to find the contact, as text: equal for jobs that identify the contact in the same way."""
        if self.subscriber_id:
            return f"id:{self.subscriber_id}"
        if self.lookup:
            return f"field:{json.dumps([str(self.lookup.field), str(self.lookup.value)])}"  # both may have any sign
        return f"email:{self.email.lower()}" if self.email else f"phone:{self.phone or self.whatsapp_phone}"


class _OfContact(Reference):
    @model_validator(mode="after")
    def _which(self) -> Self:
        if not self.given:
            raise ValueError("which contact? give subscriber_id, lookup {field, value}, email, phone or whatsapp_phone")
        return self


class _Contact(_OfContact):
    first_name: str | None = Field(None, max_length=255)
    last_name: str | None = Field(None, max_length=255)
    gender: str | None = None
    has_opt_in_sms: bool | None = None
    has_opt_in_email: bool | None = None
    consent_phrase: str | None = None
    """Required when has_opt_in_sms is true: the text that the contact agreed to."""
    fields: dict[Text, Value] = Field(default_factory=dict, validation_alias=_named("fields", "custom_fields"))
    """Values by the name or id of the field."""
    add_tags: list[TagOrField] = Field(default_factory=list)
    remove_tags: list[TagOrField] = Field(default_factory=list)

    @model_validator(mode="after")
    def _consent(self) -> Self:
        if self.has_opt_in_sms and not self.consent_phrase:
            raise ValueError("has_opt_in_sms needs a consent_phrase: the words that the contact agreed to")
        return self

    @property
    def profile(self) -> dict[str, Any]:
        """Returns the system fields that are given, in the form of updateSubscriber."""
        names = ("first_name", "last_name", "phone", "email", "gender", "has_opt_in_sms", "has_opt_in_email",
                 "consent_phrase")  # fmt: skip
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class ContactCreate(_Contact):
    """Create the contact, or update it if it exists."""

    tags: list[TagOrField] = Field(default_factory=list)
    """Tags to add."""

    @model_validator(mode="after")
    def _creatable(self) -> Self:
        if not (self.subscriber_id or self.email or self.phone or self.whatsapp_phone):
            raise ValueError("ManyChat creates a contact from an email, a phone or a whatsapp_phone: give one")
        return self


class ContactUpdate(_Contact):
    """Update a contact that exists."""

    tags: list[TagOrField] | None = None
    """The complete set of tags: missing ones are added, all others removed. None keeps the tags as they are."""


class ContactDelete(_OfContact):
    """Opt the contact out and tag it: ManyChat's API cannot delete contacts."""

    soft_delete: Literal[True]
    """has_opt_in_sms and has_opt_in_email become false and the contact gets ``deleted_tag``."""
    deleted_tag: Text = "deleted"
    """The tag, for automations in ManyChat that react to it."""


class TagCreate(Reference):
    """Create the tag; if a contact is given, add the tag to it."""

    name: Text = Field(validation_alias=_named("name", "tag", "tag_name"))


class TagUpdate(_OfContact):
    """Change the tags of one contact."""

    add: list[TagOrField] = Field(default_factory=list, validation_alias=_named("add", "add_tags"))
    remove: list[TagOrField] = Field(default_factory=list, validation_alias=_named("remove", "remove_tags"))

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.add and not self.remove:
            raise ValueError("nothing to do: give the lists 'add' and/or 'remove'")
        return self


class TagDelete(Reference):
    """Remove the tag from one contact, or delete it."""

    name: Text | None = Field(None, validation_alias=_named("name", "tag", "tag_name"))
    tag_id: Id | None = None
    delete_from_page: bool = False
    """Delete the tag itself, which removes it from every contact and cannot be undone."""

    @model_validator(mode="after")
    def _which_tag(self) -> Self:
        if (self.name is None) == (self.tag_id is None):
            raise ValueError("which tag? give its 'name' or its 'tag_id'")
        if self.given and self.delete_from_page:
            raise ValueError("one contact, or delete_from_page: not both")
        return self


class FieldCreate(_Data):
    """Create the definition of a custom field."""

    name: Text = Field(validation_alias=_named("name", "caption", "field_name"))
    field_type: Literal["text", "number", "date", "datetime", "boolean"] = Field(
        validation_alias=_named("field_type", "type")
    )
    description: str | None = None


class FieldUpdate(_OfContact):
    """Set field values of one contact: ``fields``, or one ``name``/``field_id`` with its ``value``."""

    fields: dict[Text, Value] = Field(default_factory=dict, validation_alias=_named("fields", "custom_fields"))
    name: Text | None = Field(None, validation_alias=_named("name", "field_name"))
    field_id: Id | None = None
    value: Value = Field(None, validation_alias=_named("value", "field_value"))

    @model_validator(mode="after")
    def _which_field(self) -> Self:
        single = self.name is not None or self.field_id is not None
        if single == bool(self.fields) or (self.name is not None and self.field_id is not None):
            raise ValueError("which field? give 'fields' {name: value}, or one of 'name' and 'field_id' with 'value'")
        if single and "value" not in self.model_fields_set:
            raise ValueError("'value' is missing; None clears the field")
        return self


class FieldDelete(_OfContact):
    """Clear the value of a field of one contact."""

    name: Text | None = Field(None, validation_alias=_named("name", "field_name"))
    field_id: Id | None = None

    @model_validator(mode="after")
    def _which_field(self) -> Self:
        if (self.name is None) == (self.field_id is None):
            raise ValueError("which field? give its 'name' or its 'field_id'")
        return self


SyncData = (
    ContactCreate | ContactUpdate | ContactDelete | TagCreate | TagUpdate | TagDelete | FieldCreate | FieldUpdate
    | FieldDelete
)  # fmt: skip
"""Any model of ``data``."""
