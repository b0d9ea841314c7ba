"""The fingerprint of a dead letter: its queue, its destination, and its error without ids and numbers."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any, NamedTuple
from urllib.parse import urlsplit

EVERYWHERE = "*"
"""The destination of a group with many: if our own network was down, they all have the same error."""

_HALF = 8  # characters of an id
_ANYWHERE = "0" * _HALF
_ID = re.compile("[0-9a-f]{16}")

# Numbers that are part of the fingerprint: status and error codes, and names with digits.
_KEPT = (
    r"\b(?:IPv[46]|utf-?(?:8|16|32)|s3|oauth2|HTTP/[123](?:\.\d)?|TLSv?1(?:\.\d)?|sha-?\d{1,3}|md5|base64|x509)\b"
    r"|(?:\b(?:errno|error|code|status|signal|exit|answer(?:ed|s)?|returned|responded with|HTTP)\b|\bcurl:)"
    r"[ :=(]{0,3}\d{1,5}\b(?! ?(?:m?s|%|bytes|rows|of)\b)"
    r"|(?:^|(?<=[:(] )|(?<=\())[1-5]\d\d(?= [A-Z]|[ -][245]\.\d{1,3}\.\d|, b['\"])"  # 404 Client Error, 550 5.7.8
    r"|(?<![\d.])[245]\.\d{1,3}\.\d{1,3}(?![\d.])"  # RFC 3463
    r"|^[1-5]\d\d(?= )"
)
# Parts that differ between failures of one cause: addresses, ids, and every other number.
_VARIED = (
    r"[\w.+-]+@[\w.-]+|\b\d{1,3}(?:\.\d{1,3}){3}\b|[0-9a-f]{8}-[0-9a-f-]{27}|0x[0-9a-fA-F]+"
    r"|\b(?=[0-9a-z]*\d)[0-9a-z]{12,}\b|\d+(?:[.,:]\d+)*"
)
_NUMBERS = re.compile(f"(?P<kept>{_KEPT})|{_VARIED}", re.IGNORECASE)


class Fingerprint(NamedTuple):
    """The values that all dead letters of a failure group share."""

    queue: str
    error: str
    """The last error without the parts that differ between jobs."""
    destination: str
    """A host, a mail domain, or another target of the jobs; may be empty."""

    @property
    def id(self) -> str:
        """The group's id in URLs and on the command line: a digest of queue and error, then one of the destination."""
        where = _ANYWHERE if self.destination == EVERYWHERE else _digest(self.destination)
        return _digest(self.queue, self.error) + where

    @property
    def everywhere(self) -> Fingerprint:
        """The fingerprint with the same queue and error, for all destinations."""
        return self._replace(destination=EVERYWHERE)

    @property
    def ids(self) -> tuple[str, str]:
        """The ids of the two groups to which a dead letter may belong: that of its destination, and that of all."""
        return self.id, self.everywhere.id


def score_of(group_id: str) -> int:
    """Returns the score of a group in Redis' sorted set; groups of the same error have adjacent scores."""
    return int(group_id[:6], 16) << 28 | int(group_id[_HALF : _HALF + 7], 16)  # 52 bits, as a score has 53


def scores_of(group_id: str) -> tuple[int, int]:
    """Returns the first and the last score of the dead letters of a group.

    Raises:
        ValueError: ``group_id`` is not an id.
    """
    if not _ID.fullmatch(group_id):
        raise ValueError(group_id)
    first = score_of(group_id)
    return first, first | 0xFFFFFFF if group_id.endswith(_ANYWHERE) else first


def _digest(*parts: str) -> str:
    return sha256("\0".join(parts).encode(errors="replace")).hexdigest()[:_HALF]


def fingerprint_of(queue: str, reason: str, payload: dict[str, Any] | None) -> Fingerprint:
    """Returns the fingerprint of a dead letter of ``queue`` whose last error is ``reason``."""
    where = destination(payload)
    where = "(*)" if where == EVERYWHERE else where  # the host of a URL may be any text, including EVERYWHERE
    return Fingerprint(queue, generalize(reason), where)


def generalize(reason: str) -> str:
    """Returns ``reason`` without ids, addresses, and numbers that are not codes, because they differ between jobs."""
    text = " ".join(reason[:1000].split())  # at 16,000 characters the pattern takes seconds
    return _NUMBERS.sub(lambda match: match["kept"] or "…", text)[:200]


def destination(payload: dict[str, Any] | None) -> str:
    """Returns the destination of a job: the host of its URL, the domain of its mail, or its kind within the queue."""
    if payload is None:
        return ""
    url, to = payload.get("url"), payload.get("to")
    if isinstance(url, str):
        try:
            return urlsplit(url).netloc[:100]
        except ValueError:
            return ""
    to = to[0] if isinstance(to, list) and to else to
    if isinstance(to, str):
        return to.rpartition("@")[2].rstrip(">")[:100]
    kinds = [payload.get(name) for name in ("type", "action", "data_type", "export_type")]
    return " ".join(str(kind)[:40] for kind in kinds if isinstance(kind, str))
