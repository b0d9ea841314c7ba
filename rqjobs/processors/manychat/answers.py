"""Translates ManyChat's responses to outcomes, in pure functions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from rqjobs.config.retry_after import parse_retry_after
from rqjobs.errors import PermanentFailure
from rqjobs.processors.manychat.accounts import Account
from rqjobs.processors.manychat.records import ManyChatRefused, ManyChatUnavailable

MAX_BODY = 16 * 1024 * 1024
"""The most bytes of a response that are read: a response may be a page's complete list of tags."""
_MAX_MESSAGE = 300
_ABOUT_THE_REQUEST = (400, 413, 414, 422, 431)
"""Statuses that a proxy in front of the API sends about this request, not about all."""
_MAX_RETRY_AFTER = timedelta(hours=1)


def data_of(path: str, status: int, body: bytes, account: Account) -> Any:
    """Returns ``data`` of a successful response.

    Raises:
        ManyChatRefused: the API refuses the request: 400, or 200 with a status other than ``success``.
        PermanentFailure: a proxy in front of the API refuses this request.
        ManyChatUnavailable: the token or its rights are wrong (for the account), or the URL is wrong, so that another
            server answers.
    """
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    fields = answer if isinstance(answer, dict) else {}
    if status == 200 and fields.get("status") == "success":  # noqa: PLR2004
        return fields.get("data")
    messages = [_shown(text, account) for text in _messages(fields)]
    said = "; ".join(messages) or f"HTTP {status}"
    if status in (401, 403):
        raise ManyChatUnavailable(
            f"it refuses the token of tool {account.tool_id!r}: {said}. "
            "Check MANYCHAT_API_TOKEN / MANYCHAT_API_TOKENS, or what your token source returns",
            scope=account.key,
        )
    if fields.get("status"):
        raise ManyChatRefused(path, messages or [f"HTTP {status} without a message"])
    if status == 200:  # noqa: PLR2004
        raise ManyChatUnavailable(f"the answer to {path} is not its JSON: is MANYCHAT_API_URL right?")
    if status in _ABOUT_THE_REQUEST:
        raise PermanentFailure(f"ManyChat answers HTTP {status} to {path}: is MANYCHAT_API_URL right?")
    raise ManyChatUnavailable(f"HTTP {status} to {path}: is MANYCHAT_API_URL right?")


def _messages(answer: Mapping[str, Any]) -> Iterator[str]:
    """Yields the details if there are any, in each of the forms that the API uses; otherwise the message."""
    details = answer.get("details")
    found = list(_texts(details.get("messages") if isinstance(details, dict) else details))
    yield from found or _texts(answer.get("message"))


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, list):
        for item in node:
            yield from _texts(item)
    elif isinstance(node, dict):
        for item in node.values():
            yield from _texts(item)


def _shown(text: str, account: Account) -> str:
    """Returns ``text`` in one line, without the token if the response repeats it."""
    secret = account.token.rpartition(":")[2]
    for hidden in (account.token, secret):
        text = text.replace(hidden, "***") if hidden else text
    return " ".join(text.split())[:_MAX_MESSAGE]


def retry_after(headers: Mapping[str, str]) -> timedelta:
    """Returns the wait that the response requests, at most an hour; zero if it requests none.

    ManyChat documents no Retry-After, but a proxy in front of it may send one.
    """
    wait = parse_retry_after(headers.get("Retry-After"), limit=_MAX_RETRY_AFTER, date=headers.get("Date"))
    return wait or timedelta()
