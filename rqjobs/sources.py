"""The registry of export sources, with their columns and filters. Cheap to import, because the web process needs it."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import Any, Literal

from pydantic.alias_generators import to_snake

from rqjobs.config.file_urls import OBJECT_STORES
from rqjobs.config.settings import get_settings
from rqjobs.errors import RQJobsError
from rqjobs.jobs import DataExportJob
from rqjobs.policies import import_registrations

RowsFunction = Callable[[str, Mapping[str, object]], Iterable[Any]]
"""``rows(user_id, filters)`` returns the user's rows, each a mapping, or a sequence in the order of the columns."""

TenantRule = Callable[[Any, str], Any]
"""``rule(table, user_id)`` returns the SQLAlchemy condition that excludes the rows of other users."""


class UnknownSource(RQJobsError, LookupError):
    """No source with this name is registered.

    Attributes:
        name: the unknown name.
        known: the names that exist.
    """

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.known = tuple(known)
        super().__init__(
            f"'data_type': no source {name!r}; there are {', '.join(self.known)}. "
            "Register yours with register_source() in a module that RQJOBS_IMPORT names"
        )


@dataclass(frozen=True, kw_only=True)
class Filter:
    """A filter that selects rows."""

    column: str
    """The column that the filter compares."""
    kind: Literal["text", "id", "integer", "number", "boolean", "moment"] = "text"
    """The type of the value. An id is a text or a whole number, as in the column; a moment is an ISO 8601 date or time
    (in UTC if it has no zone).
    """
    match: Literal["equals", "since", "until", "contains"] = "equals"
    """The comparison. ``since`` includes its moment; ``until`` ends before it, but a date without a time includes that
    whole day; ``contains`` searches the entries of a list column such as tags. ``equals`` and ``contains`` take one
    value, or a list of which any may match; moments are equal if they are in the same second.
    """
    aliases: tuple[str, ...] = ()
    """Other names of the filter."""

    def parse(self, value: object) -> object:
        """Returns ``value`` as the query needs it.

        Raises:
            ValueError: it has another type; the message names the expected one.
        """
        if self.match in ("equals", "contains") and isinstance(value, list):
            if not value:
                raise ValueError("an empty list would match nothing; leave the filter out to match all")
            return [self._parse_one(item) for item in value]
        return self._parse_one(value)

    def _parse_one(self, value: object) -> object:
        if self.kind == "moment":
            return _parse_moment(value, end=self.match == "until")
        types, name = _KINDS[self.kind]
        if not isinstance(value, types) or (isinstance(value, bool) and self.kind != "boolean"):
            raise ValueError(f"{value!r} is not {name}")
        return value


_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "text": ((str,), "a text"),
    "id": ((str, int), "a text or a whole number"),
    "integer": ((int,), "a whole number"),
    "number": ((int, float), "a number"),
    "boolean": ((bool,), "true or false"),
}


def _parse_moment(value: object, *, end: bool) -> datetime:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None or not isinstance(value, str):
        raise ValueError(f"{value!r} is not a date; write 2026-01-31 or 2026-01-31T09:30:00Z")
    try:
        if end and moment.time() == time() and len(value) <= len("2026-01-31"):
            moment += timedelta(days=1)
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{value!r} is beyond the calendar; leave the filter out for no limit") from None


@dataclass(frozen=True, kw_only=True)
class Source:
    """The rows that users may export: a table of the database, or a function that returns rows."""

    name: str
    """The ``data_type`` of jobs."""
    columns: tuple[str, ...]
    """The allowed columns, in the order of the file. Of a table, those that exist are exported, and no others."""
    filters: Mapping[str, Filter] = field(default_factory=dict)
    """The filters that jobs may use, by name."""
    table: str | None = None
    """The table at DATABASE_URL, ``schema.table`` if necessary; it is reflected, and never written."""
    tenant: str | TenantRule = "user_id"
    """The owner of a row: the column that must equal the job's ``user_id``, or a rule. No filter can bypass it."""
    rows: RowsFunction | None = None
    """Instead of ``table``: called with the user's id and the parsed filters; it must return only that user's rows."""
    utc: bool = False
    """Whether times without a zone in this source are UTC; otherwise they are exported as they are."""

    def __post_init__(self) -> None:
        if (self.table is None) == (self.rows is None):
            raise ValueError(f"source {self.name!r}: give either a table or a function rows")
        if not self.columns or not isinstance(self.columns, tuple | list):
            raise ValueError(f"source {self.name!r}: name the columns that may be exported, in a tuple")
        if twice := [name for name, count in Counter(self.columns).items() if count > 1]:
            raise ValueError(f"source {self.name!r}: {', '.join(twice)} is named twice")

    def parse_filters(self, given: Mapping[str, object]) -> tuple[dict[str, object], list[str]]:
        """Returns the parsed filters by their names, and every fault found.

        Names are accepted in snake_case, in camelCase and by their aliases; a filter with the value null is ignored.
        """
        names = {alias: name for name, one in self.filters.items() for alias in (name, *one.aliases)}
        parsed: dict[str, object] = {}
        faults: list[str] = []
        for key, value in given.items():
            name = names.get(key) or names.get(to_snake(key))
            if name is None:
                close = difflib.get_close_matches(to_snake(key), names, 1)
                known = ", ".join(self.filters) or "none"
                fix = f"did you mean '{close[0]}'?" if close else f"{self.name} has {known}"
                faults.append(f"'filters': unknown filter '{key}', {fix}")
            elif name in parsed:
                faults.append(f"'filters.{key}': '{name}' is given twice")
            elif value is not None:
                try:
                    parsed[name] = self.filters[name].parse(value)
                except ValueError as error:
                    faults.append(f"'filters.{key}': {error}")
        return parsed, faults


_SOURCES: dict[str, Source] = {}


def register_source(source: Source) -> Source:
    """Adds ``source``; replaces one with the same name, so that an app can describe its own ``contacts``.

    Call it in a module of RQJOBS_IMPORT: both the process that enqueues and the one that runs the job need it.
    """
    _SOURCES[source.name] = source
    return source


def sources() -> list[Source]:
    """Returns all sources, including those of the app."""
    import_registrations()
    return list(_SOURCES.values())


def get_source(name: str) -> Source:
    """Returns the source with this name.

    Raises:
        UnknownSource: there is none.
    """
    if name not in _SOURCES:
        import_registrations()
    if name not in _SOURCES:
        raise UnknownSource(name, _SOURCES)
    return _SOURCES[name]


def check(job: DataExportJob) -> list[str]:
    """Returns the faults for which ``job`` would fail: an unknown source or filter, a mail without a link to send."""
    try:
        source = get_source(job.data_type)
    except UnknownSource as error:
        return [str(error)]
    faults = source.parse_filters(job.filters)[1]
    settings = get_settings()
    presigned = settings.export_url.partition("://")[0] in OBJECT_STORES
    if job.notify is not None and settings.export_link_url is None and not presigned:
        faults.append(
            "'notify': a mail needs a whole link: set EXPORT_LINK_URL to where the app serves rqjobs.web.downloads, "
            "such as https://app.example.com/exports"
        )
    return faults


def since_until(column: str) -> dict[str, Filter]:
    """Returns the two filters of a date range on ``column``: ``since`` and ``until``."""
    return {
        "since": Filter(column=column, kind="moment", match="since", aliases=("from", "start_date", "date_from")),
        "until": Filter(column=column, kind="moment", match="until", aliases=("to", "end_date", "date_to")),
    }


def describe(parsed: Mapping[str, object]) -> str:
    """Returns the parsed filters in one line: ``since 2026-01-01, status confirmed or done``."""

    def show(value: object) -> str:
        if isinstance(value, list):
            return " or ".join(show(item) for item in value)
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, datetime):
            return str(value.date()) if value.time() == time() else f"{value:%Y-%m-%d %H:%M} UTC"
        return str(value)

    parts = []
    for name, value in parsed.items():
        label = {"until": "before"}.get(name, name.replace("_", " "))
        parts.append(f"{label} {show(value)}")
    return ", ".join(parts)


register_source(
    Source(
        name="contacts",
        table="contacts",
        columns=(
            "id", "user_id", "manychat_id", "ig_username", "first_name", "last_name", "email", "phone",
            "follower_count", "is_subscribed", "tags", "last_interaction", "created_at", "updated_at",
        ),
        filters={
            **since_until("created_at"),
            "tag": Filter(column="tags", match="contains", aliases=("tags",)),
            "is_subscribed": Filter(column="is_subscribed", kind="boolean", aliases=("subscribed",)),
            "manychat_id": Filter(column="manychat_id", kind="id"),
            "ig_username": Filter(column="ig_username"),
            "email": Filter(column="email"),
        },
    )
)  # fmt: skip

register_source(
    Source(
        name="bookings",
        table="bookings",
        columns=(
            "id", "user_id", "tool_id", "helper_name", "booking_date", "start_time", "end_time", "status",
            "service_type", "notes", "created_at",
        ),
        filters={
            **since_until("booking_date"),
            "tool_id": Filter(column="tool_id", kind="id", aliases=("tool",)),
            "status": Filter(column="status"),
            "service_type": Filter(column="service_type"),
            "helper_name": Filter(column="helper_name", aliases=("helper",)),
        },
    )
)  # fmt: skip

register_source(
    Source(
        name="qr_scans",
        table="rqjobs_qr_events",
        # Without `visitor`, which identifies a third person and is of no use to the user.
        columns=(
            "event_id", "qr_code_id", "user_id", "event", "result", "occurred_at", "bot", "device", "os", "browser",
            "country", "city", "extra",
        ),
        filters={
            **since_until("occurred_at"),
            "qr_code_id": Filter(column="qr_code_id", kind="id", aliases=("qr_code",)),
            "event": Filter(column="event"),
            "result": Filter(column="result", aliases=("status",)),
            "bot": Filter(column="bot", kind="boolean"),
            "device": Filter(column="device"),
            "country": Filter(column="country"),
        },
        utc=True,
    )
)  # fmt: skip
