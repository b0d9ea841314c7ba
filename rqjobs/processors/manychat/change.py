"""The change of one contact that a job describes, and the merging of several changes; pure functions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from functools import reduce
from typing import Any

from rqjobs.errors import PermanentFailure
from rqjobs.jobs.manychat_data import (
    ContactCreate,
    ContactDelete,
    ContactUpdate,
    FieldDelete,
    FieldUpdate,
    Reference,
    SyncData,
    TagCreate,
    TagDelete,
    TagUpdate,
    Value,
)
from rqjobs.processors.manychat.client import MAX_FIELDS
from rqjobs.processors.manychat.records import CustomField

_NUMBER = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The desired state of one contact; fields that it does not name stay unchanged."""

    contact: Reference
    create: bool = False
    """Whether a missing contact is created."""
    profile: Mapping[str, Any] = field(default_factory=dict)
    """System fields, in the form of updateSubscriber."""
    fields: tuple[tuple[int | str, Value], ...] = ()
    """Values of custom fields, in order."""
    whole_tags: tuple[int | str, ...] | None = None
    """The complete set of the contact's tags, to which ``tags`` is then applied; None to keep the tags."""
    tags: tuple[tuple[int | str, bool], ...] = ()
    """Tags to add (True) and to remove, in order."""

    @property
    def cost(self) -> int:
        """The approximate number of calls with the limit of ten per second."""
        calls = len(self.tags) + -(-len(self.fields) // MAX_FIELDS)
        calls += bool(self.profile) + self.create + (self.whole_tags is not None) + (self.contact.lookup is not None)
        return max(1, calls)


def change_of(details: SyncData) -> Change | None:  # noqa: PLR0911  # one case a kind of data
    """Returns the change of a contact for a job's data; None if the data is about the page's tags and fields."""
    match details:
        case ContactCreate():
            ops = _ops([*details.tags, *details.add_tags], details.remove_tags)
            fields: tuple[tuple[int | str, Value], ...] = tuple(details.fields.items())
            if details.lookup is not None:  # set, so that the next job finds the contact by it
                fields = ((details.lookup.field, details.lookup.value), *fields)
            return Change(contact=details, create=True, profile=details.profile, fields=fields, tags=ops)
        case ContactUpdate():
            return Change(
                contact=details,
                profile=details.profile,
                fields=tuple(details.fields.items()),
                whole_tags=None if details.tags is None else tuple(details.tags),
                tags=_ops(details.add_tags, details.remove_tags),
            )
        case ContactDelete():
            opt_out = {"has_opt_in_sms": False, "has_opt_in_email": False}
            return Change(contact=details, profile=opt_out, tags=((details.deleted_tag, True),))
        case TagUpdate():
            return Change(contact=details, tags=_ops(details.add, details.remove))
        case TagCreate() if details.given:
            return Change(contact=details, tags=((details.name, True),))
        case TagDelete() if details.given:
            return Change(contact=details, tags=((details.name or details.tag_id or 0, False),))
        case FieldUpdate():
            single = details.name if details.name is not None else details.field_id
            pairs = details.fields.items() if single is None else [(single, details.value)]
            return Change(contact=details, fields=tuple(pairs))
        case FieldDelete():
            return Change(contact=details, fields=((details.name or details.field_id or 0, None),))
    return None


def net(changes: Iterable[Change]) -> Change:
    """Merges ``changes`` of one contact, in order, into one: for each field and tag the last change is used."""
    return reduce(_then, changes)


def _then(first: Change, second: Change) -> Change:
    whole = second.whole_tags is not None
    return replace(
        second,
        contact=first.contact if not second.contact.given else _joined(first.contact, second.contact),
        create=first.create or second.create,
        profile={**first.profile, **second.profile},
        fields=(*first.fields, *second.fields),
        whole_tags=second.whole_tags if whole else first.whole_tags,
        tags=second.tags if whole else (*first.tags, *second.tags),
    )


def _joined(first: Reference, second: Reference) -> Reference:
    """Returns all identifiers of the contact from both references."""
    names = ("subscriber_id", "lookup", "email", "phone", "whatsapp_phone")
    known = {name: getattr(second, name) or getattr(first, name) for name in names}
    return Reference.model_construct(**known)


def _ops(add: Iterable[int | str], remove: Iterable[int | str]) -> tuple[tuple[int | str, bool], ...]:
    return (*((tag, True) for tag in add), *((tag, False) for tag in remove))


def fit(value: Value, custom: CustomField) -> Value:
    """Returns ``value`` converted to the type of the field, if that loses nothing.

    Raises:
        PermanentFailure: the value does not fit the type.
    """
    try:
        fitted = _fitted(value, custom.type)
        if isinstance(fitted, int | float) and not math.isfinite(fitted):
            fitted = None
    except (ValueError, OverflowError):  # not a date, a number with thousands of digits, a moment before the year 1
        fitted = None
    if fitted is None:
        raise PermanentFailure(
            f"the custom field {custom.name!r} is of type {custom.type}: {_FORMS[custom.type or '']}"
        )
    return fitted


def _fitted(value: Value, kind: str | None) -> Value:  # noqa: PLR0911  # one case a type
    match kind, value:
        case "text", str() | int() | float() if not isinstance(value, bool):
            return str(value)
        case "number", int() | float() if not isinstance(value, bool):
            return value
        case "number", str() if _NUMBER.fullmatch(value.strip()):
            return float(value) if "." in value else int(value)
        case "boolean", bool():
            return value
        case "date", str():
            return date.fromisoformat(value).isoformat()
        case "datetime", str() if (moment := datetime.fromisoformat(value)).tzinfo is not None:
            return moment.astimezone(UTC).isoformat(timespec="seconds")
        case None, _:
            return value
    return None


_FORMS = {
    "text": "give a string",
    "number": "give a number",
    "boolean": "give True or False",
    "date": "give a day such as 2026-07-18",
    "datetime": "give a moment with its offset, such as 2026-07-18T12:00:00+00:00",
    "": "give a string, a number or a boolean",
}
