"""A mail with its template rendered and its files read, and its form by RFC 5322."""

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
"""Characters that must be encoded in a 7-bit text: a server refuses a NUL, or cuts the mail there."""


@dataclass(frozen=True, slots=True)
class File:
    """An attachment with its content."""

    name: str
    content_type: str
    data: bytes
    content_id: str | None = None
    """The Content-ID by which the HTML refers to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """One mail, ready to be sent by any backend."""

    key: str
    """The idempotency key: the same for every attempt of this mail, and different from that of any other mail."""
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
    """Addresses that an earlier attempt has completed: they stay in the headers, but are not sent to."""

    own_sender: bool = False
    """Whether the job names the sender, so that a refusal of the sender is the job's failure."""

    @property
    def message_id(self) -> str:
        """The Message-ID; the same for every attempt, so that mail programs show one mail."""
        return message_id(self.key, self.sender)

    @property
    def recipients(self) -> list[str]:
        """All addresses that it still has to be sent to, each once."""
        found = dict.fromkeys(box.address for box in (*self.to, *self.cc, *self.bcc))
        return [address for address in found if address not in self.done]

    @property
    def people(self) -> dict[str, list[Mailbox]]:
        """The remaining recipients, each once, as to, cc and bcc: APIs send to all of them, and require a to."""
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
        """Whether an address has characters beyond ASCII before its @, which need SMTPUTF8 (RFC 6531)."""
        boxes = (self.sender, *self.to, *self.cc, *self.bcc, *([self.reply_to] if self.reply_to else []))
        return not all(box.local.isascii() for box in boxes)


def message_id(key: str, sender: Mailbox) -> str:
    """Returns the Message-ID of the mail with this key."""
    return f"<{key}@{sender.domain}>"


def build(mail: Mail, *, bcc: bool = False) -> bytes:
    """Returns the message as RFC 5322 text with CRLF, in 7 bits unless an address needs UTF-8.

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
        # Many programs read text without a charset as ASCII (RFC 2046, 4.1.2).
        params = {"charset": "utf-8"} if maintype == "text" and _is_utf8(file.data) else {}
        message.add_attachment(file.data, maintype=maintype, subtype=subtype, filename=name, params=params)
    fields = {"From": [mail.sender], "To": mail.to, "Cc": mail.cc, "Bcc": mail.bcc if bcc else [],
              "Reply-To": [mail.reply_to] if mail.reply_to else []}  # fmt: skip
    own = [write_mailboxes(name, boxes) for name, boxes in fields.items() if boxes]
    own.append(write_text("Subject", mail.subject))
    # Python folds a long word, such as the link of List-Unsubscribe, into encoded words that no mail program decodes.
    # The job's check ensures one line of ASCII each, within the 998 characters that RFC 5322 allows.
    own += [f"{name}: {value}" for name, value in mail.headers.items()]
    return "".join(f"{line}\r\n" for line in own).encode() + message.as_bytes()


def _encoding(text: str) -> str | None:
    """Returns the content transfer encoding that ``text`` needs; None leaves the choice to Python."""
    return "quoted-printable" if _CONTROL.search(text) else None


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def plain(text: str) -> str:
    """Returns ``text`` without encoded words (RFC 2047).

    Python decodes those in a header, and writes their line breaks raw.
    """
    return text.replace("=?", "= ?")


def address_of(box: Mailbox) -> str:
    """Returns ``Ada <ada@example.com>``, with quotes if the name needs them."""
    return str(Address(display_name=plain(box.name), username=box.local, domain=box.domain))
