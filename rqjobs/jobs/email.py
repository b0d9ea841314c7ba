"""EmailJob: one mail from a template."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from rqjobs.jobs.base import JobModel, Name, json_object


def check_address(address: str) -> str:
    """``address`` if a mail can be sent to it: ``ada@example.com`` or ``Ada <ada@example.com>``.

    Raises:
        ValueError: it cannot.
    """
    from email.headerregistry import Address
    from email.utils import parseaddr

    if not address.isprintable():
        raise ValueError("an address has no line breaks or control characters")
    _name, spec = parseaddr(address)
    try:
        parsed = Address(addr_spec=spec)
    except Exception:  # noqa: BLE001  # the header registry raises many kinds for malformed input
        raise ValueError("not an address; write ada@example.com or Ada <ada@example.com>") from None
    if not parsed.username or "." not in parsed.domain.strip("."):
        raise ValueError("not an address; write ada@example.com or Ada <ada@example.com>")
    return address


EmailAddress = Annotated[str, AfterValidator(check_address)]
"""One address, with or without a display name."""


class EmailJob(JobModel):
    """Send the mail that ``template`` makes of ``data``."""

    queue: ClassVar[str] = "email"

    to: EmailAddress | Annotated[list[EmailAddress], Field(min_length=1, max_length=50)]
    """Whom to: one address or up to fifty."""
    subject: Annotated[str, Field(strict=True, min_length=1, max_length=998)]
    """The subject; it may use the template's variables."""
    template: Name
    """The template's name: ``welcome`` means ``welcome.html.j2`` and/or ``welcome.txt.j2``."""
    data: Annotated[dict[str, Any], json_object("data")]
    """The template's variables."""

    def label(self) -> str:
        """``email booking-confirmation``: the addresses stay out of logs."""
        return f"email {self.template}"
