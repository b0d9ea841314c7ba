"""Finds, creates and changes one contact; repeating a change leaves the same state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from rqjobs.errors import PermanentFailure
from rqjobs.jobs.manychat_data import Reference, Value
from rqjobs.processors.manychat.catalog import Catalog
from rqjobs.processors.manychat.change import Change, fit
from rqjobs.processors.manychat.client import ManyChat
from rqjobs.processors.manychat.records import CustomField, ManyChatRefused, Subscriber


@dataclass(slots=True)
class Applied:
    """The changes made to a contact."""

    subscriber_id: int
    outcome: str
    """``created``, ``updated``, or ``unchanged`` if the contact had the desired state already."""
    fields: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Returns it for the job's result."""
        return {
            "outcome": self.outcome,
            "subscriber_id": str(self.subscriber_id),
            "fields": self.fields,
            "tags": {"added": self.added, "removed": self.removed},
        }


class Contacts:
    """The contacts of one account, for one run of a job."""

    def __init__(self, api: ManyChat, catalog: Catalog) -> None:
        self._api = api
        self._catalog = catalog

    def apply(self, change: Change) -> Applied:
        """Changes one contact to the state that ``change`` describes.

        Raises:
            PermanentFailure: there is no such contact, or more than one, or no such field.
            ManyChatRefused: the API refuses a value.
        """
        if change.contact.subscriber_id is not None:
            return self._update(change.contact.subscriber_id, None, change)
        found = self._find(change.contact, by_name=[] if change.create else _names(change))
        if found is None and change.create:
            return self._create(change)
        if found is None:
            raise PermanentFailure(
                "ManyChat has no such contact; a job of type contact, action create makes one, and a contact that has"
                " only a WhatsApp number is found by its subscriber_id or a lookup field"
            )
        return self._update(found.id, self._mirrored(found, change.contact), change)

    def _find(self, contact: Reference, by_name: Iterable[str]) -> Subscriber | None:
        """Finds the contact by custom field, email, phone or WhatsApp number, in this order."""
        if contact.lookup is not None:
            wanted = self._catalog.field(contact.lookup.field)
            if wanted.type not in ("text", "number", None):
                raise PermanentFailure(f"ManyChat finds contacts by text and number fields, not by {wanted.name!r}")
            if found := self._api.find_by_field(wanted.id, contact.lookup.value):
                return _only(found, f"{wanted.name!r}")
        if contact.email is not None and (found := self._api.find_by_email(contact.email)):
            return _only(found, "this email")
        for phone in dict.fromkeys(filter(None, (contact.phone, contact.whatsapp_phone))):
            if found := self._api.find_by_phone(phone):
                return _only(found, "this phone")
        if contact.whatsapp_phone is None:
            return None
        for name in by_name:  # the API does not search WhatsApp numbers
            same = [one for one in self._api.find_by_name(name) if _has_number(one, contact.whatsapp_phone)]
            if same:
                return _only(same, "this WhatsApp number")
        return None

    def _create(self, change: Change) -> Applied:
        contact, profile = change.contact, dict(change.profile)
        if contact.whatsapp_phone is not None:
            profile["whatsapp_phone"] = contact.whatsapp_phone
        if "phone" in profile:
            profile.setdefault("has_opt_in_sms", False)
        if "email" in profile:
            profile.setdefault("has_opt_in_email", False)
        try:
            made = self._api.create_subscriber(**profile)
        except ManyChatRefused as refusal:
            if not refusal.already_exists:
                raise
            found = self._find(contact, by_name=_names(change))
            if found is None:
                raise PermanentFailure(
                    f"{refusal}. The API does not find that contact: give its subscriber_id, or a lookup field"
                ) from None
            return self._update(found.id, self._mirrored(found, contact), change)
        done = self._update(made.id, self._mirrored(made, contact), change, profile_is_set=True)
        done.outcome = "created"
        return done

    def _mirrored(self, one: Subscriber, contact: Reference) -> Subscriber:
        """Copies the WhatsApp number to an empty ``phone``, which the API can search."""
        if contact.whatsapp_phone is None or contact.phone is not None or one.phone:
            return one
        try:
            return self._api.update_subscriber(one.id, phone=contact.whatsapp_phone, has_opt_in_sms=False) or one
        except ManyChatRefused as refusal:
            if refusal.already_exists:  # another contact has this phone, so this one is not changed
                return one
            raise

    def _update(
        self, subscriber_id: int, known: Subscriber | None, change: Change, *, profile_is_set: bool = False
    ) -> Applied:
        """Updates a contact.

        ``known`` is its current state, if the API has just returned it; it saves calls that would change nothing.
        """
        done = Applied(subscriber_id, "unchanged")
        if change.profile and not profile_is_set and not _has_profile(known, change.profile):
            known = self._api.update_subscriber(subscriber_id, **change.profile) or known
            done.outcome = "updated"
        self._set_fields(done, change.fields)
        self._set_tags(done, known, change)
        if done.fields or done.added or done.removed:
            done.outcome = "updated"
        return done

    def _set_fields(self, done: Applied, wanted: Iterable[tuple[int | str, Value]]) -> None:
        last: dict[int, tuple[CustomField, Value]] = {}
        for name, value in wanted:
            custom = self._catalog.field(name)
            last[custom.id] = (custom, None if value is None else fit(value, custom))
        values = [(field_id, value) for field_id, (_custom, value) in last.items() if value is not None]
        self._api.set_fields(done.subscriber_id, values)
        for custom, value in last.values():
            if value is None:
                self._clear(done.subscriber_id, custom)
        done.fields = [custom.name for custom, _value in last.values()]

    def _clear(self, subscriber_id: int, custom: CustomField) -> None:
        """Clears a value: the API does not document whether null or '' does that, so both are tried."""
        for empty in (None, ""):
            try:
                self._api.set_fields(subscriber_id, [(custom.id, empty)])
            except ManyChatRefused as refusal:
                if refusal.missing:
                    raise
                continue
            if self._api.subscriber(subscriber_id).value_of(custom.id) in (None, ""):
                return
        raise PermanentFailure(f"ManyChat does not clear the field {custom.name!r}; set a value that means 'none'")

    def _set_tags(self, done: Applied, known: Subscriber | None, change: Change) -> None:
        wanted: dict[int, tuple[str, bool]] = {}
        if change.whole_tags is not None:
            if known is None or known.tags is None:
                known = self._api.subscriber(done.subscriber_id)
            wanted = {tag.id: (tag.name, False) for tag in known.tags or ()}
            wanted |= {tag.id: (tag.name, True) for tag in map(self._catalog.tag, change.whole_tags)}
        last: dict[str, tuple[int | str, bool]] = {}
        for name, add in reversed(change.tags):
            last.setdefault(str(name).casefold(), (name, add))
        for name, add in reversed(last.values()):  # a tag may be given by its name and by its id
            tag = self._catalog.tag(name) if add else self._catalog.find_tag(name)
            if tag is not None:
                wanted[tag.id] = (tag.name, add)
        there = None if known is None or known.tags is None else {tag.id for tag in known.tags}
        for tag_id, (name, add) in wanted.items():
            if there is not None and (tag_id in there) == add:
                continue
            if add:
                self._api.add_tag(done.subscriber_id, tag_id)
                done.added.append(name)
            else:
                self._api.remove_tag(done.subscriber_id, tag_id)
                done.removed.append(name)


def _only(found: list[Subscriber], by: str) -> Subscriber:
    if len({one.id for one in found}) > 1:
        raise PermanentFailure(f"{len(found)} contacts of ManyChat have {by}: give the subscriber_id")
    return found[0]


def _names(change: Change) -> list[str]:
    """Returns the names under which ManyChat may list a contact that has only a WhatsApp number.

    These are the full name, or the number.
    """
    full = " ".join(filter(None, (change.profile.get("first_name"), change.profile.get("last_name"))))
    number = change.contact.whatsapp_phone
    return [name for name in (full, number) if name]


def _has_number(one: Subscriber, number: str) -> bool:
    return number.lstrip("+") in ((one.whatsapp_phone or "").lstrip("+"), (one.phone or "").lstrip("+"))


def _has_profile(known: Subscriber | None, profile: dict[str, Any] | Any) -> bool:
    """Returns whether the contact has all these values already.

    The API does not return consent, so that is always sent.
    """
    shown = {} if known is None else known.model_dump(include={"first_name", "last_name", "gender", "email", "phone"})
    return all(name in shown and shown[name] == value for name, value in profile.items())
