"""Of what a job died: its queue, its error without what differs from job to job, and its destination."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any, NamedTuple
from urllib.parse import urlsplit

EVERYWHERE = "*"
"""Stands for every destination: when our own network was down, all of them share one error."""

_HALF = 8  # characters of an id
_ANYWHERE = "0" * _HALF
_ID = re.compile("[0-9a-f]{16}")

# What differs between failures of one cause: ids, addresses, counts, times. Status codes stay (550, 5.7.8).
_VARIABLE = re.compile(
    r"\b\d{1,3}(?:\.\d{1,3}){3}\b|[0-9a-f]{8}-[0-9a-f-]{27}|0x[0-9a-fA-F]+|\b(?=[0-9a-z]*\d)[0-9a-z]{12,}\b"
    r"|(?<![\d.])\d+\.\d+(?!\.?\d)|\b\d{4,}\b|\b\d+(?= m?s\b)|[\w.+-]+@[\w.-]+"
)


class Cause(NamedTuple):
    """What the dead letters of a group have in common."""

    queue: str
    error: str
    """The last error, with what differs from job to job left out."""
    destination: str
    """A host, a mail domain, or what else the jobs aim at; may be empty."""

    @property
    def id(self) -> str:
        """The cause in URLs and on the command line: of queue and error, then of the destination."""
        where = _ANYWHERE if self.destination == EVERYWHERE else _digest(self.destination)
        return _digest(self.queue, self.error) + where

    @property
    def everywhere(self) -> Cause:
        """The same error of the same queue, whatever the destination."""
        return self._replace(destination=EVERYWHERE)

    @property
    def ids(self) -> tuple[str, str]:
        """The groups that a dead letter of this cause may stand in: of its destination, and of all."""
        return self.id, self.everywhere.id


def score_of(cause_id: str) -> int:
    """A cause's place among all, as a number that Redis sorts by: the causes of one error stand side by side."""
    return int(cause_id[:6], 16) << 28 | int(cause_id[_HALF : _HALF + 7], 16)  # 52 bits, as a score has 53


def scores_of(cause_id: str) -> tuple[int, int]:
    """The first and the last place of what belongs to a group.

    Raises:
        ValueError: it is no id.
    """
    if not _ID.fullmatch(cause_id):
        raise ValueError(cause_id)
    first = score_of(cause_id)
    return first, first | 0xFFFFFFF if cause_id.endswith(_ANYWHERE) else first


def _digest(*words: str) -> str:
    return sha256("\0".join(words).encode(errors="replace")).hexdigest()[:_HALF]


def cause_of(queue: str, reason: str, payload: dict[str, Any] | None) -> Cause:
    """The cause of a dead letter of ``queue`` whose last error is ``reason``."""
    where = destination(payload)
    return Cause(queue, generalize(reason), "(*)" if where == EVERYWHERE else where)  # a URL's host may be anything


def generalize(reason: str) -> str:
    """``reason`` without what differs between failures of one cause: ids, addresses, long numbers, times."""
    return _VARIABLE.sub("…", " ".join(reason[:1000].split()))[:200]  # at 16,000 characters the pattern takes seconds


def destination(payload: dict[str, Any] | None) -> str:
    """What a job aims at: the host of its URL, the domain of its mail, or its kind within the queue."""
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
    words = [payload.get(name) for name in ("type", "action", "data_type", "export_type")]
    return " ".join(str(word)[:40] for word in words if isinstance(word, str))
