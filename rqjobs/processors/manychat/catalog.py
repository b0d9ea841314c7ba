"""The page's tags and custom fields: read from ManyChat once a minute, and shared by all workers through Redis."""

from __future__ import annotations

from typing import TypeVar

import redis
from pydantic import TypeAdapter

from rqjobs.broker.keys import PREFIX
from rqjobs.errors import PermanentFailure
from rqjobs.processors.manychat.client import ManyChat
from rqjobs.processors.manychat.records import CustomField, ManyChatRefused, Tag

_KEPT = 60  # seconds
_TAGS = TypeAdapter(list[Tag])
_FIELDS = TypeAdapter(list[CustomField])

_Item = TypeVar("_Item", Tag, CustomField)


class Catalog:
    """Finds tags and fields by id, or by name in any case. For an unknown name the list is read again."""

    def __init__(self, api: ManyChat, connection: redis.Redis) -> None:
        self._api = api
        self._redis = connection
        self._tags: list[Tag] | None = None
        self._fields: list[CustomField] | None = None
        self._fresh: set[str] = set()

    def find_tag(self, wanted: int | str) -> Tag | None:
        """Returns the tag with this id or name; None if the page has none."""
        return _find(self._read_tags(), wanted) or _find(self._read_tags(fresh=True), wanted)

    def tag(self, wanted: int | str) -> Tag:
        """Returns the tag with this id or name; creates one with a name that does not exist.

        Raises:
            PermanentFailure: the page has no tag with this id.
        """
        if tag := self.find_tag(wanted):
            return tag
        if isinstance(wanted, int):
            raise PermanentFailure(f"ManyChat has no tag with the id {wanted}; give its name to have it created")
        try:
            tag = self._api.create_tag(wanted)
        except ManyChatRefused as refusal:
            if not refusal.already_exists:
                raise
            self.forget()
            if (tag := self.find_tag(wanted)) is None:
                raise
            return tag
        self.forget()
        return tag

    def find_field(self, wanted: int | str) -> CustomField | None:
        """Returns the field with this id or name; None if the page has none."""
        return _find(self._read_fields(), wanted) or _find(self._read_fields(fresh=True), wanted)

    def field(self, wanted: int | str) -> CustomField:
        """Returns the field with this id or name.

        Raises:
            PermanentFailure: the page has no such field.
        """
        if field := self.find_field(wanted):
            return field
        raise PermanentFailure(
            f"ManyChat has no custom field {wanted!r}: create it there, or with a job of type field, action create"
        )

    def forget(self) -> None:
        """Drops the cached lists for all workers, after a tag or field was created or deleted."""
        self._tags = self._fields = None
        self._fresh.clear()
        self._redis.delete(self._key("tags"), self._key("fields"))

    def _read_tags(self, *, fresh: bool = False) -> list[Tag]:
        if self._tags is None or (fresh and "tags" not in self._fresh):
            cached = None if fresh else self._redis.get(self._key("tags"))
            self._tags = _TAGS.validate_json(cached) if cached else self._keep("tags", self._api.tags(), _TAGS)
        return self._tags

    def _read_fields(self, *, fresh: bool = False) -> list[CustomField]:
        if self._fields is None or (fresh and "fields" not in self._fresh):
            cached = None if fresh else self._redis.get(self._key("fields"))
            self._fields = (
                _FIELDS.validate_json(cached) if cached else self._keep("fields", self._api.fields(), _FIELDS)
            )
        return self._fields

    def _keep(self, what: str, items: list[_Item], adapter: TypeAdapter[list[_Item]]) -> list[_Item]:
        self._fresh.add(what)
        self._redis.set(self._key(what), adapter.dump_json(items), ex=_KEPT)
        return items

    def _key(self, what: str) -> str:
        return f"{PREFIX}:manychat:{self._api.account.key}:{what}"


def _find(items: list[_Item], wanted: int | str) -> _Item | None:
    """Searches by id, by name, and by name in another case; a text of digits is also searched as an id, last."""
    if isinstance(wanted, str):
        for item in items:
            if item.name == wanted:
                return item
        for item in items:
            if item.name.casefold() == wanted.casefold():
                return item
    return next((item for item in items if str(item.id) == str(wanted)), None)
