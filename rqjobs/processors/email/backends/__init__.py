"""The ways out: a folder, an SMTP server, SendGrid, Resend. EMAIL_BACKEND chooses."""

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
"""To be called at the last moment before the other side may take the mail."""


class Backend(Protocol):
    """One way out."""

    name: str
    dependency: str
    """Its name where it is away."""

    def send(self, mail: Mail, begin: Begin, remaining: float) -> Receipt:
        """Hands the mail over within ``remaining`` seconds.

        Raises:
            PermanentFailure: refused for good.
            RetryLater: refused, and the other side said until when.
            NotSent: certainly not sent, worth another try.
            DependencyUnavailable: certainly not sent, and no mail would be: the server is away, or refuses our login.
            UnknownOutcome: it may have been sent.
        """
        ...

    def prevents_duplicate(self, record: SendRecord) -> bool:
        """Whether handing over a mail of unknown outcome again cannot send it twice."""
        ...

    def waits(self, attempts: Sequence[Attempt]) -> list[float]:
        """The seconds that each mail has to wait before it is sent; 0 for now."""
        ...


def get_backend() -> Backend:
    """The backend of this installation."""
    name = get_settings().email_backend
    return cast("Backend", import_module(f"rqjobs.processors.email.backends.{name}").BACKEND)
