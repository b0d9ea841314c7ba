"""The outcomes of sending a mail. Each states whether the mail may have been sent."""

from __future__ import annotations

from dataclasses import dataclass, field

from rqjobs.errors import RQJobsError


class NotSent(RQJobsError):
    """The mail was certainly not sent, and a retry may succeed; retried by the queue's policy."""


class UnknownOutcome(RQJobsError):
    """The mail may have been sent: the connection broke, or the time was over, before the server's reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The result for an accepted mail, with the addresses that were refused."""

    accepted: list[str]
    """The accepted addresses."""
    refused: dict[str, str] = field(default_factory=dict)
    """Addresses refused for good, each with the server's reply."""
    later: dict[str, str] = field(default_factory=dict)
    """Addresses to try again, each with the server's reply."""
    provider_id: str | None = None
    """The provider's id of the mail."""
