"""The email backends: a folder, an SMTP server, SendGrid, Resend. EMAIL_BACKEND chooses one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Protocol, cast

from rqjobs.attempt import Attempt
from rqjobs.config.settings import get_settings
from rqjobs.processors.email.message import Mail
from rqjobs.processors.email.outcome import Receipt
from rqjobs.processors.email.send_record import SendRecord

Begin = Callable[[], None]
"""The backend calls this just before the server may accept the mail; it writes the send record."""


class Backend(Protocol):
    """A backend that sends mails."""

    name: str
    dependency: str
    """The name under which pages show it when it is unavailable."""

    def send(self, mail: Mail, begin: Begin, remaining: float) -> Receipt:
        """Sends the mail within ``remaining`` seconds.

        Raises:
            PermanentFailure: refused for good.
            RetryLater: refused, with a time for the next attempt.
            NotSent: certainly not sent; a retry may succeed.
            DependencyUnavailable: certainly not sent, and no other mail would be: the server does not answer, or
                refuses our login.
            UnknownOutcome: the mail may have been sent.
        """
        ...

    def prevents_duplicate(self, record: SendRecord) -> bool:
        """Returns whether a mail with unknown outcome can be sent again without a duplicate."""
        ...

    def waits(self, attempts: Sequence[Attempt]) -> list[float]:
        """Returns the seconds that each mail has to wait before it is sent; 0 for now."""
        ...


def get_backend() -> Backend:
    """Returns the backend that EMAIL_BACKEND names."""
    name = get_settings().email_backend
    return cast("Backend", import_module(f"rqjobs.processors.email.backends.{name}").BACKEND)
