"""WebhookJob: one event to one URL."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from rqjobs.jobs.base import EventName, JobModel, Name, json_object

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.1: a token
_PLAIN_URL = re.compile(r"(https?)://([a-z0-9.-]+)(?::([1-9][0-9]*))?(|/[\w.~/%:@!$&'()*+,;=-]*)(?:\?.*)?", re.ASCII)
_RESERVED = (
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "content-type",
    "te",
    "upgrade",
    "trailer",
)


@lru_cache(1000)
def check_url(url: str) -> str:
    """Returns ``url`` if it is an http(s) URL with a host and without a user name. Delivery checks the target itself.

    Raises:
        ValueError: the URL is invalid.
    """
    if not url.isprintable() or " " in url or "\\" in url or len(url) > 2048:  # noqa: PLR2004
        raise ValueError("a URL has at most 2048 characters, none of them blank or a control character")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not an http:// or https:// URL with a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a user name in a URL ends up in logs; send it as a header")
    if port == 0:
        raise ValueError("port 0 cannot be reached")
    return url


@lru_cache(1000)
def _destination(url: str, webhook_id: str) -> str:
    # The names of the breakers (Context.place), without the check of the target that a worker makes: the URLs of which
    # its spelling would be another are left to the worker.
    found = _PLAIN_URL.fullmatch(url)
    if found is None:
        return ""
    scheme, host, port, path = found.groups()
    return f"{scheme}://{host}:{port or ('443' if scheme == 'https' else '80')}\n{path or '/'}\n{webhook_id}"


def check_headers(headers: dict[str, str]) -> dict[str, str]:
    """Returns ``headers`` if none of them can break the request or replace what we sign.

    Raises:
        ValueError: a header can; the message names all that can.
    """
    faults = []
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            faults.append(f"{name!r} is not a header's name")
        elif name.lower() in _RESERVED or name.lower().startswith(("webhook-", "x-webhook-", "proxy-")):
            faults.append(f"{name!r} is set by rqjobs and cannot be overwritten")
        if not value.isascii() or any((ord(char) < 0x20 and char != "\t") or ord(char) == 0x7F for char in value):  # noqa: PLR2004
            faults.append(f"the value of {name!r} has characters that a header cannot carry")
    if faults:
        raise ValueError("; ".join(faults))
    return headers


class WebhookJob(JobModel):
    """Deliver ``payload`` as the event ``event`` to ``url``, with a signature."""

    queue: ClassVar[str] = "webhooks"
    encrypted_field: ClassVar[str | None] = "headers"

    webhook_id: Name
    """The app's id of the subscription or endpoint to which this delivery belongs."""
    event: EventName
    """The name of the event, such as ``qr.scanned``."""
    url: Annotated[str, AfterValidator(check_url)]
    """The destination: http or https, without a user name."""
    payload: Annotated[dict[str, Any], json_object("payload")]
    """The data of the event: an object that JSON can represent."""
    headers: Annotated[dict[str, str], AfterValidator(check_headers)] = Field(default_factory=dict)
    """Additional headers; they cannot replace those that rqjobs sets. Their values are encrypted at rest."""
    endpoint: Name | None = None
    """The registered endpoint for this delivery: its secret signs the request, and its current URL is used."""

    def secret_place(self) -> str:
        """Returns the endpoint, or the URL if there is none."""
        return self.endpoint or self.url

    def destination(self) -> str:
        """Returns the endpoint, or origin, path and webhook_id, a line each; "" for a URL of unusual spelling."""
        return self.endpoint or _destination(self.url, self.webhook_id)

    def label(self) -> str:
        """``webhook wh_123 qr.scanned``."""
        return f"webhook {self.webhook_id} {self.event}"
