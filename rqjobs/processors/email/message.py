"""A mail with everything looked up, and its form by RFC 5322."""

from __future__ import annotations

import email.policy
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage

from rqjobs.config.addresses import Mailbox
from rqjobs.processors.email.headers import write_mailboxes, write_text

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""Characters that a text of seven bits must not hold unencoded: a server refuses a NUL, or cuts the mail there."""


@dataclass(frozen=True, slots=True)
class File:
    """An attachment, read."""

    name: str
    content_type: str
    data: bytes
    content_id: str | None = None
    """By which the HTML shows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """One mail, ready to be handed over by any backend."""

    key: str
    """The same for every attempt at this mail, and for no other: the idempotency key."""
    sender: Mailbox
    to: list[Mailbox]
    cc: list[Mailbox] = field(default_factory=list)
    bcc: list[Mailbox] = field(default_factory=list)
    reply_to: Mailbox | None = None
    subject: str
    text: str
    html: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    files: list[File] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    done: frozenset[str] = frozenset()
    """Addresses that an earlier attempt has settled: in the headers still, but not sent to."""

    own_sender: bool = False
    """Whether the job names its sender itself: that the provider refuses it is then the job's fault."""

    @property
    def message_id(self) -> str:
        """The same for every attempt, so that mail programs and people see one mail."""
        return message_id(self.key, self.sender)

    @property
    def recipients(self) -> list[str]:
        """Every address that it still goes to, once."""
        found = dict.fromkeys(box.address for box in (*self.to, *self.cc, *self.bcc))
        return [address for address in found if address not in self.done]

    @property
    def people(self) -> dict[str, list[Mailbox]]:
        """The recipients that are left, once each, as to, cc, bcc: APIs send to all listed, and require a to."""
        seen = set(self.done)
        found = {}
        for name, boxes in (("to", self.to), ("cc", self.cc), ("bcc", self.bcc)):
            fresh = [box for box in boxes if not (box.address in seen or seen.add(box.address))]  # type: ignore[func-returns-value]
            if fresh:
                found[name] = fresh
        if "to" not in found:  # a Bcc recipient must not be visible to the others
            found["to"] = found.pop("cc", [self.sender])
        return found

    @property
    def needs_utf8(self) -> bool:
        """Whether an address has letters beyond ASCII before its @: only SMTPUTF8 (RFC 6531) can carry it."""
        boxes = (self.sender, *self.to, *self.cc, *self.bcc, *([self.reply_to] if self.reply_to else []))
        return not all(box.local.isascii() for box in boxes)


def message_id(key: str, sender: Mailbox) -> str:
    """The Message-ID of the mail of this key."""
    return f"<{key}@{sender.domain}>"


def build(mail: Mail, *, bcc: bool = False) -> bytes:
    """The message as RFC 5322 text with CRLF, seven bits wide unless an address needs UTF-8.

    Args:
        mail: the mail.
        bcc: write the Bcc field; only for the files of EMAIL_BACKEND=file.
    """
    policy = email.policy.SMTP.clone(cte_type="7bit", utf8=mail.needs_utf8)
    message = EmailMessage(policy=policy)
    message["Message-ID"] = mail.message_id
    message["Date"] = datetime.now(UTC)
    if mail.tags:
        message["X-Tags"] = ", ".join(mail.tags)
    message.set_content(mail.text, cte=_encoding(mail.text))
    if mail.html is not None:
        message.add_alternative(mail.html, subtype="html", cte=_encoding(mail.html))
    body = message.get_body(("html",))
    for file in sorted(
        mail.files, key=lambda file: file.content_id is None
    ):  # images first: they are parts of the body
        maintype, _, subtype = file.content_type.partition("/")
        name = plain(file.name)
        if file.content_id is not None and body is not None:
            content_id = f"<{file.content_id}>"
            body.add_related(file.data, maintype, subtype, cid=content_id, disposition="inline", filename=name)
            continue
        # Text without a charset is ASCII to many programs (RFC 2046, 4.1.2).
        params = {"charset": "utf-8"} if maintype == "text" and _is_utf8(file.data) else {}
        message.add_attachment(file.data, maintype=maintype, subtype=subtype, filename=name, params=params)
    fields = {"From": [mail.sender], "To": mail.to, "Cc": mail.cc, "Bcc": mail.bcc if bcc else [],
              "Reply-To": [mail.reply_to] if mail.reply_to else []}  # fmt: skip
    own = [write_mailboxes(name, boxes) for name, boxes in fields.items() if boxes]
    own.append(write_text("Subject", mail.subject))
    # Python folds a long word, such as the link of List-Unsubscribe, into encoded words that no reader decodes.
    # These are checked to be one line of ASCII each, within the 998 characters that RFC 5322 allows.
    own += [f"{name}: {value}" for name, value in mail.headers.items()]
    return "".join(f"{line}\r\n" for line in own).encode() + message.as_bytes()


def _encoding(text: str) -> str | None:
    """The content transfer encoding that ``text`` needs; None leaves the choice to Python."""
    return "quoted-printable" if _CONTROL.search(text) else None


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def plain(text: str) -> str:
    """``text`` without encoded words (RFC 2047): Python decodes those of a header, and writes their line breaks raw."""
    return text.replace("=?", "= ?")


def address_of(box: Mailbox) -> str:
    """``Ada <ada@example.com>``, with quotes where the name needs them."""
    return str(Address(display_name=plain(box.name), username=box.local, domain=box.domain))
