"""A typed client of ManyChat's public API (https://api.manychat.com/swagger), within its rate limits."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Literal, TypeVar

import redis
import requests
import urllib3
from pydantic import ValidationError

from rqjobs.attempt import Attempt
from rqjobs.broker.rate_limit import Cooldown, RateLimit
from rqjobs.errors import PermanentFailure, RetryLater
from rqjobs.jobs.manychat_data import Value
from rqjobs.processors.manychat.accounts import Account
from rqjobs.processors.manychat.answers import MAX_BODY, data_of, retry_after
from rqjobs.processors.manychat.records import CustomField, ManyChatUnavailable, ManyChatUnclear, Subscriber, Tag

Kind = Literal["page", "find", "other"]

LIMITS: dict[Kind, int] = {"page": 100, "find": 50, "other": 10}
"""The calls per second and token that ManyChat allows: reads of the page, findBySystemField, all others."""
MAX_FIELDS = 20
"""The most fields in one call of setCustomFields."""

_WINDOW = timedelta(seconds=1)
_FIRST_PATIENCE = 1.0  # the most seconds that a job waits for the rate limit before its first call
_PATIENCE = 10.0  # the same for later calls: a new attempt would repeat the first ones
_CONNECT, _READ = 5.0, 10.0
_THROTTLED_FOR_FREE = timedelta(days=1)

_Record = TypeVar("_Record", Tag, CustomField, Subscriber)

_local = threading.local()


def limit_of(account: Account, kind: Kind = "other") -> RateLimit:
    """Returns the rate limit that all workers share for calls of this kind with the account's token."""
    name = f"manychat:{account.key}"
    return RateLimit(f"{name}:{kind}", LIMITS[kind], _WINDOW, Cooldown(name))


class ManyChat:
    """The API with one account's token, for one run of a job.

    Every method raises ManyChatRefused if the API refuses the request, ManyChatUnavailable if the API does not answer
    or refuses the token (the queue, or the account's jobs, are held), and RetryLater if a rate limit is used up. After
    a 429 all workers pause for this token.
    """

    def __init__(self, account: Account, url: str, connection: redis.Redis, attempt: Attempt) -> None:
        self.account = account
        self.calls = 0
        """The number of calls that this run has made."""
        self._url = url
        self._redis = connection
        self._attempt = attempt

    def tags(self) -> list[Tag]:
        """Returns all tags of the page."""
        return _items(Tag, "page/getTags", self._get("page/getTags", "page"))

    def create_tag(self, name: str) -> Tag:
        """Creates a tag."""
        return _one(Tag, "page/createTag", self._post("page/createTag", name=name), "tag")

    def delete_tag(self, tag_id: int) -> None:
        """Deletes a tag, which removes it from every contact and cannot be undone."""
        self._post("page/removeTag", tag_id=tag_id)

    def fields(self) -> list[CustomField]:
        """Returns the definitions of all custom fields."""
        return _items(CustomField, "page/getCustomFields", self._get("page/getCustomFields", "page"))

    def create_field(self, name: str, kind: str, description: str | None) -> CustomField:
        """Creates a custom field."""
        more = {"description": description} if description else {}
        data = self._post("page/createCustomField", caption=name, type=kind, **more)
        return _one(CustomField, "page/createCustomField", data, "field")

    def subscriber(self, subscriber_id: int) -> Subscriber:
        """Returns the contact with this id."""
        path = "subscriber/getInfo"
        return _one(Subscriber, path, self._get(path, "other", subscriber_id=subscriber_id))

    def find_by_name(self, name: str) -> list[Subscriber]:
        """Returns at most 100 contacts with this full name."""
        path = "subscriber/findByName"
        return _items(Subscriber, path, self._get(path, "other", name=name))

    def find_by_field(self, field_id: int, value: str | int) -> list[Subscriber]:
        """Returns the contacts with this value in a custom field of type text or number."""
        path = "subscriber/findByCustomField"
        return _items(Subscriber, path, self._get(path, "other", field_id=field_id, field_value=value))

    def find_by_email(self, email: str) -> list[Subscriber]:
        """Returns the contact with this address, as a list of at most one."""
        path = "subscriber/findBySystemField"
        return _items(Subscriber, path, self._get(path, "find", email=email))

    def find_by_phone(self, phone: str) -> list[Subscriber]:
        """Returns the contact with this phone, as a list of at most one. whatsapp_phone is not searched."""
        path = "subscriber/findBySystemField"
        return _items(Subscriber, path, self._get(path, "find", phone=phone))

    def create_subscriber(self, **profile: Any) -> Subscriber:
        """Creates a contact from a phone, whatsapp_phone or email."""
        path = "subscriber/createSubscriber"
        return _one(Subscriber, path, self._post(path, **profile))

    def update_subscriber(self, subscriber_id: int, **profile: Any) -> Subscriber | None:
        """Changes system fields; returns the changed contact, if the API returns it."""
        path = "subscriber/updateSubscriber"
        found = _items(Subscriber, path, self._post(path, subscriber_id=subscriber_id, **profile))
        return found[0] if found else None

    def add_tag(self, subscriber_id: int, tag_id: int) -> None:
        """Adds a tag to a contact."""
        self._post("subscriber/addTag", subscriber_id=subscriber_id, tag_id=tag_id)

    def remove_tag(self, subscriber_id: int, tag_id: int) -> None:
        """Removes a tag from a contact."""
        self._post("subscriber/removeTag", subscriber_id=subscriber_id, tag_id=tag_id)

    def set_fields(self, subscriber_id: int, values: Sequence[tuple[int, Value]]) -> None:
        """Sets the values of custom fields by id, MAX_FIELDS per call."""
        for start in range(0, len(values), MAX_FIELDS):
            chunk = values[start : start + MAX_FIELDS]
            fields = [{"field_id": field_id, "field_value": value} for field_id, value in chunk]
            self._post("subscriber/setCustomFields", subscriber_id=subscriber_id, fields=fields)

    def _get(self, path: str, kind: Kind, **query: Any) -> Any:
        return self._call("GET", path, kind, {"params": query})

    def _post(self, path: str, **body: Any) -> Any:
        return self._call("POST", path, "other", {"json": body})

    def _call(self, method: str, path: str, kind: Kind, arguments: dict[str, Any]) -> Any:
        for first in (True, False):
            try:
                response, body, pressed = self._paced(method, path, kind, arguments)
                break
            except requests.exceptions.InvalidJSONError:  # its text may contain the value
                raise PermanentFailure(f"the request to {path} holds a number that JSON cannot carry") from None
            except requests.RequestException as error:
                reason = type(error).__name__  # its text contains the query, and with it the contact's address
                closed = isinstance(error, requests.ConnectionError) and not isinstance(error, requests.Timeout)
            if not first or not closed:
                raise self._unavailable(path, reason)
            _local.session = None  # mostly a kept connection that the server has closed: tried once on a new one
        status = response.status_code
        if status == 429:  # noqa: PLR2004
            wait = limit_of(self.account).cooldown.press(self._redis, retry_after(response.headers))
            raise RetryLater(timedelta(seconds=wait), f"ManyChat answers 429 to {path}", counts=self._is_old)
        if status >= 500 or status in (408, 425):  # noqa: PLR2004
            raise self._unavailable(path, f"HTTP {status}")
        data = data_of(path, status, body, self.account)
        if pressed:
            limit_of(self.account).cooldown.release(self._redis)
        return data

    def _paced(
        self, method: str, path: str, kind: Kind, arguments: dict[str, Any]
    ) -> tuple[requests.Response, bytes, int]:
        """Sends one request when the rate limit admits it; returns the response, and the cooldowns before it."""
        self._attempt.check()
        patience = min(_PATIENCE if self.calls else _FIRST_PATIENCE, self._attempt.remaining / 2)
        with limit_of(self.account, kind).place(self._redis, patience=patience) as place:
            if not place.granted:
                reason = "ManyChat's rate limit of the token is used up"
                raise RetryLater(timedelta(seconds=place.wait), reason, counts=False)
            self.calls += 1
            return *self._send(method, path, arguments), place.pressed

    def _send(self, method: str, path: str, arguments: dict[str, Any]) -> tuple[requests.Response, bytes]:
        """Sends one request and reads its whole body, with a total deadline.

        A timeout of requests would apply to each read.
        """
        deadline = time.monotonic() + min(_READ, self._attempt.remaining)
        response = _session().request(
            method,
            f"{self._url}/fb/{path}",
            headers={"Authorization": f"Bearer {self.account.token}", "Accept": "application/json"},
            timeout=(min(_CONNECT, max(0.1, self._attempt.remaining)), max(0.1, deadline - time.monotonic())),
            allow_redirects=False,
            stream=True,
            **arguments,
        )
        with response:
            return response, b"".join(_chunks(response, deadline))

    def _unavailable(self, path: str, reason: str) -> ManyChatUnavailable:
        return ManyChatUnavailable(f"it does not answer {path}: {reason}")

    @property
    def _is_old(self) -> bool:
        """Returns whether a 429 counts as an attempt of this job, because the job is a day old.

        A 429 concerns all jobs of the token, so before that it counts for none.
        """
        return datetime.now(UTC) - self._attempt.enqueued_at > _THROTTLED_FOR_FREE


def _session() -> requests.Session:
    """Returns the session of this thread, because requests' sessions are not thread-safe.

    No proxies, .netrc or cookies.
    """
    session: requests.Session | None = getattr(_local, "session", None)
    if session is None or _local.pid != os.getpid():
        session = requests.Session()
        session.trust_env = False
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        _local.session, _local.pid = session, os.getpid()
    return session


def _chunks(response: requests.Response, deadline: float) -> Iterable[bytes]:
    size = 0
    try:
        while chunk := response.raw.read1(65536, decode_content=True):
            size += len(chunk)
            if size > MAX_BODY:
                raise PermanentFailure(f"ManyChat's answer is longer than {MAX_BODY} bytes; is MANYCHAT_API_URL right?")
            if time.monotonic() > deadline:
                raise requests.ReadTimeout("the answer took too long")
            yield chunk
    except urllib3.exceptions.HTTPError as error:
        raise requests.ReadTimeout(f"the answer broke off: {type(error).__name__}") from None


def _items(model: type[_Record], path: str, data: Any) -> list[_Record]:
    """Returns the records of a response.

    The API sends a contact as an object or as a list of one, and none as [] or null.
    """
    items = data if isinstance(data, list) else [data] if data else []
    try:
        return [model.model_validate(item) for item in items]
    except ValidationError:
        pass  # its text contains the response, and with it the contact
    raise ManyChatUnclear(f"ManyChat's answer to {path} is not of the shape that it documents")


def _one(model: type[_Record], path: str, data: Any, inside: str | None = None) -> _Record:
    if inside is not None:
        data = data.get(inside) if isinstance(data, dict) else None
    found = _items(model, path, data)
    if not found:
        raise ManyChatUnclear(f"ManyChat's answer to {path} is empty")
    return found[0]
