"""One ManyChat account in memory: the endpoints of its public API, with their rules and quirks."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Clearing = Literal["null", "empty", "silent"]
"""How a field's value is cleared, which ManyChat's documentation leaves open.

``null``: by null ('' is refused); ``empty``: by '' (null is refused); ``silent``: by '' (null is accepted, but changes
nothing).
"""

_PROFILE = ("first_name", "last_name", "phone", "email", "gender", "has_opt_in_sms", "has_opt_in_email",
            "consent_phrase")  # fmt: skip
_VALUES: dict[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "date": lambda value: bool(re.fullmatch(r"\d{4}-\d\d-\d\d", str(value))),
    "datetime": lambda value: bool(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", str(value))),
}
_MOST_FIELDS = 20
_MOST_FLOWS = 100  # an hour and contact


class ApiFault(Exception):
    """A request that the API refuses with status 400."""

    def __init__(self, messages: list[dict[str, str]] | dict[str, dict[str, list[str]]]) -> None:
        self.messages = messages
        super().__init__(str(messages))


def _refuse(text: str) -> ApiFault:
    return ApiFault([{"message": text}])


@dataclass
class Subscriber:
    """A contact."""

    id: int
    profile: dict[str, Any] = field(default_factory=dict)
    whatsapp_phone: str | None = None
    fields: dict[int, Any] = field(default_factory=dict)
    tags: set[int] = field(default_factory=set)
    flows: list[float] = field(default_factory=list)
    """The times at which flows were sent to it (``time.monotonic()``)."""

    @property
    def name(self) -> str:
        """The full name; for a contact without one, its WhatsApp number."""
        words = [self.profile.get("first_name"), self.profile.get("last_name")]
        return " ".join(word for word in words if word) or self.whatsapp_phone or ""


@dataclass
class Account:
    """The state of one page, and the API's operations on it. Not thread-safe: the caller holds ``lock``."""

    page_id: int
    clearing: Clearing = "null"
    tags: dict[int, str] = field(default_factory=dict)
    fields: dict[int, dict[str, Any]] = field(default_factory=dict)
    subscribers: dict[int, Subscriber] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    last_id: int = 1000

    def call(self, method: str, path: str, args: Mapping[str, Any]) -> Any:
        """Runs one endpoint and returns its ``data``.

        Raises:
            LookupError: there is no such endpoint.
            ApiFault: the API refuses the request.
        """
        endpoint = _ENDPOINTS.get((method, path))
        if endpoint is None:
            raise LookupError(path)
        with self.lock:
            return getattr(self, endpoint)(args)

    def _get_info(self, _args: Mapping[str, Any]) -> Any:
        return {"id": self.page_id, "name": "Sandbox", "username": None, "is_pro": True, "timezone": "UTC"}

    def _get_tags(self, _args: Mapping[str, Any]) -> Any:
        return [{"id": tag_id, "name": name} for tag_id, name in self.tags.items()]

    def _create_tag(self, args: Mapping[str, Any]) -> Any:
        name = _text(args, "name")
        if name.casefold() in map(str.casefold, self.tags.values()):
            raise _refuse("Tag with specified name already exists")
        self.tags[tag_id := self._new_id()] = name
        return {"tag": {"id": tag_id, "name": name}}

    def _remove_tag(self, args: Mapping[str, Any]) -> Any:
        tag_id = self._tag(args)
        del self.tags[tag_id]
        for subscriber in self.subscribers.values():
            subscriber.tags.discard(tag_id)

    def _get_fields(self, _args: Mapping[str, Any]) -> Any:
        return list(self.fields.values())

    def _create_field(self, args: Mapping[str, Any]) -> Any:
        name, kind = _text(args, "caption"), args.get("type")
        if kind not in _VALUES:
            raise _refuse("Field type is invalid")
        if name.casefold() in (known["name"].casefold() for known in self.fields.values()):
            raise _refuse("Field with specified name already exists")
        field_id = self._new_id()
        self.fields[field_id] = {
            "id": field_id,
            "name": name,
            "type": kind,
            "description": args.get("description") or "",
        }
        return {"field": self.fields[field_id]}

    def _subscriber_info(self, args: Mapping[str, Any]) -> Any:
        return self._view(self._subscriber({"subscriber_id": _number(args.get("subscriber_id"))}))

    def _find_by_name(self, args: Mapping[str, Any]) -> Any:
        name = _text(args, "name").casefold()
        return [self._view(one) for one in self.subscribers.values() if one.name.casefold() == name][:100]

    def _find_by_field(self, args: Mapping[str, Any]) -> Any:
        known = self.fields.get(_number(args.get("field_id")))
        if known is None or known["type"] not in ("text", "number"):
            raise _refuse("Field must exist and be of type text or number")
        value = str(args.get("field_value"))
        return [self._view(one) for one in self.subscribers.values() if str(one.fields.get(known["id"])) == value]

    def _find_by_system_field(self, args: Mapping[str, Any]) -> Any:
        given = [name for name in ("email", "phone") if args.get(name)]
        if len(given) != 1:
            raise _refuse("Exactly one of email and phone is required")
        # The API does not search whatsapp_phone.
        found = self._holder(given[0], args[given[0]])
        return self._view(found) if found else []

    def _create_subscriber(self, args: Mapping[str, Any]) -> Any:
        self._check_profile(args)
        if not any(args.get(name) for name in ("phone", "whatsapp_phone", "email")):
            raise _refuse("One of phone, whatsapp_phone, email is required")
        for name, consent in (("phone", "has_opt_in_sms"), ("email", "has_opt_in_email")):
            if args.get(name) and not isinstance(args.get(consent), bool):
                raise ApiFault({consent: {"message": [f"{consent} is required with {name}"]}})
        number = args.get("whatsapp_phone")
        if number and any(one.whatsapp_phone == number for one in self.subscribers.values()):
            raise ApiFault({"wa_id": {"message": [f"This WhatsApp ID already exists: {number.lstrip('+')}"]}})
        self._check_unique(args, None)
        subscriber = Subscriber(self._new_id(), _profile(args), number)
        self.subscribers[subscriber.id] = subscriber
        return self._view(subscriber)

    def _update_subscriber(self, args: Mapping[str, Any]) -> Any:
        subscriber = self._subscriber(args)
        if "whatsapp_phone" in args:
            raise _refuse("Unknown parameter whatsapp_phone")
        self._check_profile(args)
        self._check_unique(args, subscriber)
        subscriber.profile |= _profile(args)
        return self._view(subscriber)

    def _add_tag(self, args: Mapping[str, Any]) -> Any:
        self._subscriber(args).tags.add(self._tag(args))

    def _remove_subscriber_tag(self, args: Mapping[str, Any]) -> Any:
        self._subscriber(args).tags.discard(self._tag(args))

    def _set_field(self, args: Mapping[str, Any]) -> Any:
        self._set(self._subscriber(args), args)

    def _set_fields(self, args: Mapping[str, Any]) -> Any:
        subscriber, items = self._subscriber(args), args.get("fields")
        if not isinstance(items, list) or not 1 <= len(items) <= _MOST_FIELDS:
            raise _refuse(f"From 1 to {_MOST_FIELDS} fields are allowed")
        for item in items:
            self._set(subscriber, item)

    def _send_flow(self, args: Mapping[str, Any]) -> Any:
        subscriber, now = self._subscriber(args), time.monotonic()
        _text(args, "flow_ns")
        subscriber.flows = [moment for moment in subscriber.flows if moment > now - 3600]
        if len(subscriber.flows) >= _MOST_FLOWS:
            raise _refuse("Too many flows were sent to this subscriber within an hour")
        subscriber.flows.append(now)

    def _new_id(self) -> int:
        self.last_id += 1
        return self.last_id

    def _subscriber(self, args: Mapping[str, Any]) -> Subscriber:
        subscriber_id = args.get("subscriber_id")
        if not isinstance(subscriber_id, int) or isinstance(subscriber_id, bool):
            raise _refuse("subscriber_id must be an integer")
        if subscriber_id not in self.subscribers:
            raise _refuse("Subscriber does not exist")
        return self.subscribers[subscriber_id]

    def _holder(self, name: str, value: Any) -> Subscriber | None:
        wanted = str(value).casefold()
        return next(
            (one for one in self.subscribers.values() if str(one.profile.get(name) or "").casefold() == wanted), None
        )

    def _check_profile(self, args: Mapping[str, Any]) -> None:
        for name in ("phone", "whatsapp_phone"):
            if args.get(name) and not re.fullmatch(r"\+[1-9]\d{6,14}", str(args[name])):
                raise ApiFault({name: {"message": ["The phone number is invalid"]}})
        if args.get("email") and str(args["email"]).rpartition("@")[2].endswith(".invalid"):
            raise ApiFault({"email": {"message": ["The email is invalid"]}})
        if args.get("has_opt_in_sms") and not args.get("consent_phrase"):
            raise ApiFault({"consent_phrase": {"message": ["consent_phrase is required"]}})

    def _check_unique(self, args: Mapping[str, Any], owner: Subscriber | None) -> None:
        for name in ("email", "phone"):
            if args.get(name) and self._holder(name, args[name]) not in (None, owner):
                raise ApiFault({name: {"message": [f"This {name} already exists: {args[name]}"]}})

    def _tag(self, args: Mapping[str, Any]) -> int:
        tag_id, name = args.get("tag_id"), args.get("tag_name")
        for known, text in self.tags.items():
            if known == tag_id or (name is not None and text.casefold() == str(name).casefold()):
                return known
        raise _refuse("Tag does not exist")

    def _set(self, subscriber: Subscriber, args: Mapping[str, Any]) -> None:
        field_id, name, value = args.get("field_id"), args.get("field_name"), args.get("field_value")
        known = self.fields.get(field_id) if isinstance(field_id, int) else None
        known = known or next((one for one in self.fields.values() if one["name"] == name), None)
        if known is None:
            raise _refuse("Field does not exist")
        if (value is None and self.clearing == "null") or (value == "" and self.clearing != "null"):
            subscriber.fields.pop(known["id"], None)
        elif value is None and self.clearing == "silent":
            return
        elif value is None or value == "" or not _VALUES[known["type"]](value):
            raise _refuse("Field value is invalid")
        else:
            subscriber.fields[known["id"]] = value

    def _view(self, one: Subscriber) -> dict[str, Any]:
        """Returns the contact as the API shows it: the id as a string, null for missing values."""
        return {
            "id": str(one.id),
            "page_id": str(self.page_id),
            "status": "active",
            "name": one.name,
            **{name: one.profile.get(name) for name in _PROFILE if name != "consent_phrase"},
            "whatsapp_phone": one.whatsapp_phone,
            "custom_fields": [{**known, "value": one.fields.get(known["id"])} for known in self.fields.values()],
            "tags": [{"id": tag_id, "name": self.tags[tag_id]} for tag_id in sorted(one.tags)],
        }


_ENDPOINTS = {
    ("GET", "page/getInfo"): "_get_info",
    ("GET", "page/getTags"): "_get_tags",
    ("POST", "page/createTag"): "_create_tag",
    ("POST", "page/removeTag"): "_remove_tag",
    ("POST", "page/removeTagByName"): "_remove_tag",
    ("GET", "page/getCustomFields"): "_get_fields",
    ("POST", "page/createCustomField"): "_create_field",
    ("GET", "subscriber/getInfo"): "_subscriber_info",
    ("GET", "subscriber/findByName"): "_find_by_name",
    ("GET", "subscriber/findByCustomField"): "_find_by_field",
    ("GET", "subscriber/findBySystemField"): "_find_by_system_field",
    ("POST", "subscriber/createSubscriber"): "_create_subscriber",
    ("POST", "subscriber/updateSubscriber"): "_update_subscriber",
    ("POST", "subscriber/addTag"): "_add_tag",
    ("POST", "subscriber/addTagByName"): "_add_tag",
    ("POST", "subscriber/removeTag"): "_remove_subscriber_tag",
    ("POST", "subscriber/removeTagByName"): "_remove_subscriber_tag",
    ("POST", "subscriber/setCustomField"): "_set_field",
    ("POST", "subscriber/setCustomFieldByName"): "_set_field",
    ("POST", "subscriber/setCustomFields"): "_set_fields",
    ("POST", "sending/sendFlow"): "_send_flow",
}


def _text(args: Mapping[str, Any], name: str) -> str:
    value = args.get(name)
    if not isinstance(value, str) or not value.strip():
        raise _refuse(f"{name} should not be blank")
    return value


def _number(value: Any) -> int:
    return int(value) if str(value).isdigit() else 0


def _profile(args: Mapping[str, Any]) -> dict[str, Any]:
    return {name: args[name] for name in _PROFILE if name in args}
