"""Posts a mail to a provider's API, and decides after an error whether it may have arrived."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import requests
from urllib3.exceptions import NewConnectionError

from rqjobs.config.retry_after import parse_retry_after
from rqjobs.errors import DependencyUnavailable
from rqjobs.processors.email.backends import Begin
from rqjobs.processors.email.outcome import UnknownOutcome

_CONNECT = 5.0
_READ = 30.0
_MAX_ANSWER = 64 * 1024
_LONGEST_WAIT = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Answer:
    """The response of an API."""

    status: int
    headers: requests.structures.CaseInsensitiveDict[str]
    body: Any
    """The body as JSON; None if it is not JSON."""

    def retry_after(self, default: timedelta) -> timedelta:
        """Returns the wait that Retry-After (seconds or an HTTP date) requests, at most a day; else ``default``."""
        wait = parse_retry_after(self.headers.get("retry-after"), limit=_LONGEST_WAIT, date=self.headers.get("date"))
        return max(default if wait is None else wait, timedelta(seconds=1))


class _Sessions(threading.local):
    session: requests.Session | None = None
    pid = 0


_kept = _Sessions()


def _session() -> requests.Session:
    if _kept.session is None or _kept.pid != os.getpid():
        _kept.session, _kept.pid = requests.Session(), os.getpid()
        _kept.session.trust_env = False  # ignores proxies and .netrc of the environment
    return _kept.session


def post(
    name: str,
    url: str,
    key: str,
    payload: dict[str, Any],
    begin: Begin,
    *,
    remaining: float,
    headers: dict[str, str] | None = None,
) -> Answer:
    """Posts ``payload`` as JSON with the bearer token ``key`` to the provider ``name``; returns the response.

    Raises:
        DependencyUnavailable: there was no connection.
        UnknownOutcome: the connection broke, or the time was over, before the response.
    """
    body = json.dumps(payload, ensure_ascii=False).encode()
    sent = {
        "Authorization": f"Bearer {key}",
        "Content-Type": "application/json",
        "User-Agent": "rqjobs",
        **(headers or {}),
    }
    deadline = time.monotonic() + remaining
    timeout = (max(0.1, min(_CONNECT, remaining)), max(0.1, min(_READ, remaining)))
    begin()
    try:
        with _session().post(
            url, data=body, headers=sent, timeout=timeout, allow_redirects=False, stream=True
        ) as response:  # fmt: skip
            return Answer(response.status_code, response.headers, _body(response, deadline))
    except requests.RequestException as error:
        if _never_connected(error):
            raise DependencyUnavailable(name, f"{url} cannot be reached: {_describe(error)}") from error
        raise UnknownOutcome(f"{url} did not answer: {_describe(error)}") from error


def _body(response: requests.Response, deadline: float) -> Any:
    """Returns the JSON of the response. The status decides the outcome; a late, long or invalid body is ignored."""
    text = b""
    with contextlib.suppress(requests.RequestException, ValueError):
        for chunk in response.iter_content(4096):
            text += chunk
            if len(text) > _MAX_ANSWER or time.monotonic() > deadline:
                break
        return json.loads(text)
    return None


def _never_connected(error: requests.RequestException) -> bool:
    if isinstance(error, requests.exceptions.ConnectTimeout | requests.exceptions.SSLError):
        return True
    cause = error.args[0] if error.args else None
    return isinstance(getattr(cause, "reason", cause), NewConnectionError)


def _describe(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:200]
