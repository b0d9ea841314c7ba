"""EMAIL_BACKEND=file: .eml files in RQJOBS_DATA/mail, for development. Mail programs open them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rqjobs.attempt import Attempt
from rqjobs.processors.email.backends import Begin
from rqjobs.processors.email.effects import Effect
from rqjobs.processors.email.message import Mail, build
from rqjobs.processors.email.outcome import Receipt
from rqjobs.settings import get_settings


class FileBackend:
    """Writes each mail to a file named by its key, so that a repeat writes the same file."""

    name = "file"

    def send(self, mail: Mail, begin: Begin, remaining: float) -> Receipt:  # noqa: ARG002  # a file takes no time
        """Writes the file; it is there whole or not at all."""
        folder = get_settings().rqjobs_data / "mail"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{mail.key}.eml"
        temporary = folder / f".{mail.key}.{os.getpid()}"
        begin()
        with temporary.open("wb") as file:
            file.write(build(mail, bcc=True))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        return Receipt(accepted=mail.recipients, provider_id=str(path))

    def covers(self, effect: Effect) -> bool:
        """The same file is written again."""
        return effect.backend == self.name

    def line(self, attempts: Sequence[Attempt]) -> list[float]:
        """A folder has no limits."""
        return [0.0] * len(attempts)


BACKEND = FileBackend()
