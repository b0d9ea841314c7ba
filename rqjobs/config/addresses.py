"""Parses and checks mail addresses."""

from __future__ import annotations

import re
from typing import NamedTuple

_ATOM = r"[^\s\x00-\x1f\x7f()<>\[\]:;@\\,.\"]+"  # RFC 5322 atext, and beyond ASCII RFC 6531
_LOCAL_PART = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)", re.IGNORECASE)
_BROKEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line breaks, direction overrides, lone surrogates. Joiners are allowed: names need them."""
_FIX = "write ada@example.com or Ada <ada@example.com>"


class Mailbox(NamedTuple):
    """The parts of a mail address."""

    name: str
    """The display name; empty if there is none."""
    local: str
    """The part before the @."""
    domain: str
    """The part after the @, in ASCII (IDNA 2008), lower case."""

    @property
    def address(self) -> str:
        """The address without the display name."""
        return f"{self.local}@{self.domain}"


def parse_address(text: str) -> Mailbox:
    """Parses ``ada@example.com`` or ``Ada <ada@example.com>``; the name needs no quotes.

    Raises:
        ValueError: it is not an address to which a mail can be sent.
    """
    name, spec = "", text.strip()
    if spec.endswith(">"):
        name, opening, spec = spec[:-1].rpartition("<")
        if not opening:
            raise ValueError(f"not an address: a > without its <; {_FIX}")
        name = name.strip()
        if len(name) > 1 and name[0] == name[-1] == '"':
            name = re.sub(r"\\(.)", r"\1", name[1:-1])
    if not is_line(text) or not spec.isprintable():
        raise ValueError("an address has no line breaks or control characters")
    local, _, domain = spec.strip().rpartition("@")
    if not _LOCAL_PART.fullmatch(local) or len(local.encode()) > 64 or "=?" in local:  # noqa: PLR2004  # RFC 5321, 4.5.3.1.1
        # "=?" begins an encoded word, which may contain line breaks (RFC 2047), and which Python would decode.
        raise ValueError(f"not an address; {_FIX}")
    return Mailbox(name, local, _ascii_domain(domain))


def _ascii_domain(domain: str) -> str:
    if not domain.isascii():
        import idna

        try:
            domain = idna.encode(domain, uts46=True).decode()
        except idna.IDNAError:
            raise ValueError(f"not a domain that exists; {_FIX}") from None
    labels = domain.split(".")
    if len(labels) < 2 or len(domain) > 253 or not all(map(_LABEL.fullmatch, labels)):  # noqa: PLR2004  # RFC 1035
        raise ValueError(f"not an address; {_FIX}")
    return domain.lower()


def is_line(text: str) -> bool:
    """Returns whether ``text`` is one line, as a name or a subject from untrusted data must be."""
    return not _BROKEN.search(text)


def check_address(address: str) -> str:
    """Returns ``address`` if a mail can be sent to it.

    Raises:
        ValueError: it is not such an address.
    """
    parse_address(address)
    return address
