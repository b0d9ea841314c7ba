"""EmailJob: one mail from a template."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, Field

from rqjobs.config.addresses import check_address, parse_address
from rqjobs.jobs.base import STRICT, JobModel, Name, json_object

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SET_BY_US = frozenset({
    "from", "to", "cc", "bcc", "subject", "date", "message-id", "reply-to", "sender", "return-path", "received",
    "mime-version", "dkim-signature", "x-tags", "x-sg-id", "x-sg-eid",
})  # fmt: skip
MAX_RECIPIENTS = 50
"""The most addresses in each of To, Cc and Bcc: Resend's limit. To reach more people, enqueue several mails."""


def _check_line(text: str) -> str:
    if any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 or char in "\u2028\u2029" for char in text):  # noqa: PLR2004
        raise ValueError("one line, without line breaks or control characters")
    return text


def _check_headers(headers: dict[str, str]) -> dict[str, str]:
    faults = []
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or len(name) > 76:  # noqa: PLR2004  # a line of RFC 5322
            faults.append(f"{name!r} is not a header's name")
        elif name.lower() in _SET_BY_US or name.lower().startswith("content-"):
            faults.append(f"{name!r} is set by rqjobs; use the job's fields")
        if not value.isascii() or not value.isprintable() or len(value) > 900:  # noqa: PLR2004  # a line of RFC 5322
            faults.append(f"the value of {name!r} is not one line of ASCII")
    if faults:
        raise ValueError("; ".join(faults))
    return headers


EmailAddress = Annotated[str, AfterValidator(check_address)]
"""One address, with or without a display name."""


def _check_addresses(value: object) -> object:
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(address, str) for address in found):
        raise ValueError("one address, or a list of addresses")  # pydantic collects ValueErrors
    if not 1 <= len(found) <= MAX_RECIPIENTS:
        raise ValueError(f"{len(found)} addresses; a mail has 1 to {MAX_RECIPIENTS}, more people get a mail each")
    for number, address in enumerate(found, 1):
        try:
            parse_address(address)
        except ValueError as error:
            raise ValueError(f"address {number}: {error}" if len(found) > 1 else str(error)) from None
    return value


EmailAddresses = Annotated[str | list[str], BeforeValidator(_check_addresses)]
"""One address, or up to fifty."""


class Attachment(BaseModel):
    """A file attached to a mail. A plain string in ``EmailJob.attachments`` is its ``source``."""

    model_config = STRICT

    source: Annotated[str, Field(min_length=1, max_length=2048), AfterValidator(_check_line)]
    """The location from which the worker reads it: a path, or any fsspec URL such as ``s3://bucket/invoice.pdf``."""
    name: Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_check_line)] | None = None
    """The file's name in the mail; by default the last part of ``source``."""
    content_type: Annotated[str, Field(pattern=r"^[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+$")] | None = None
    """The media type, such as ``application/pdf``; by default derived from the suffix of the name."""
    content_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] | None = None
    """If set, the file is an image inside the HTML, shown by ``<img src="cid:CONTENT_ID">``."""


def _attachment(value: object) -> object:
    if isinstance(value, str):
        return {"source": value}
    if not isinstance(value, dict | Attachment):
        raise ValueError("a path, a URL, or an object with source, name, content_type, content_id")  # noqa: TRY004
    return value


if TYPE_CHECKING:
    AnyAttachment = str | Attachment
else:  # the job holds an Attachment also if it was made with a string
    AnyAttachment = Annotated[Attachment, BeforeValidator(_attachment)]

Tag = Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9_-]{1,256}$")]


class EmailJob(JobModel):
    """Send the mail that ``template`` renders with ``data``."""

    queue: ClassVar[str] = "email"

    to: EmailAddresses
    """The recipients: one address or up to fifty, each with or without a name."""
    subject: Annotated[str, Field(strict=True, min_length=1, max_length=998), AfterValidator(_check_line)] | None
    """The subject; None for the one in the template's block ``subject``."""
    template: Name
    """The template's name: ``welcome`` means ``welcome.html.j2`` and/or ``welcome.txt.j2``."""
    data: Annotated[dict[str, Any], json_object("data")]
    """The template's variables."""
    cc: EmailAddresses | None = None
    """Recipients of a copy, visible to all."""
    bcc: EmailAddresses | None = None
    """Recipients of a copy that no other recipient sees."""
    sender: EmailAddress | None = Field(None, validation_alias=AliasChoices("from", "sender"))
    """The sender, instead of EMAIL_FROM. JSON producers may write ``from``."""
    reply_to: EmailAddress | None = None
    """The address for replies, if it is not the sender's."""
    headers: Annotated[dict[str, str], AfterValidator(_check_headers)] = Field(default_factory=dict)
    """Additional headers, such as ``List-Unsubscribe``; they cannot replace those that rqjobs sets."""
    attachments: list[AnyAttachment] = Field(default_factory=list, max_length=20)
    """Attached files, read when the mail is sent; at most EMAIL_MAX_ATTACHMENTS bytes in total."""
    tags: list[Tag] = Field(default_factory=list, max_length=10)
    """Tags by which the provider's statistics group mails: letters, digits, ``_`` and ``-``."""

    def label(self) -> str:
        """``email booking-confirmation``: the addresses must not appear in logs."""
        return f"email {self.template}"


def addresses(value: str | list[str] | None) -> list[str]:
    """Returns the addresses of a field as a list."""
    return [] if value is None else [value] if isinstance(value, str) else value
