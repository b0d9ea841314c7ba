"""EMAIL_BACKEND=file: writes .eml files to RQJOBS_DATA/mail, for development. Mail programs open them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

from rqjobs.attempt import Attempt
from rqjobs.config.private_files import make_private_folder, open_new
from rqjobs.config.settings import data_folder
from rqjobs.errors import DependencyUnavailable
from rqjobs.processors.email.backends import Begin
from rqjobs.processors.email.message import Mail, build
from rqjobs.processors.email.outcome import Receipt
from rqjobs.processors.email.send_record import SendRecord


class FileBackend:
    """Writes each mail to a file named by its key, so that a repetition writes the same file."""

    name = "file"
    dependency = "mail folder"

    def send(self, mail: Mail, begin: Begin, remaining: float) -> Receipt:  # noqa: ARG002  # a file takes no time
        """Writes the file; it appears complete or not at all."""
        with _folder_outages():
            folder = data_folder() / "mail"
            make_private_folder(folder)
        path = folder / f"{mail.key}.eml"
        temporary = folder / f".{mail.key}.{os.getpid()}"
        begin()
        text = build(mail, bcc=True)
        with _folder_outages():
            temporary.unlink(missing_ok=True)  # left by a process that was killed
            with open_new(temporary) as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        return Receipt(accepted=mail.recipients, provider_id=str(path))

    def prevents_duplicate(self, record: SendRecord) -> bool:
        """Returns whether this backend has sent it, because then the same file is written again."""
        return record.backend == self.name

    def waits(self, attempts: Sequence[Attempt]) -> list[float]:
        """Returns zeros: a folder has no rate limit."""
        return [0.0] * len(attempts)


BACKEND = FileBackend()


@contextlib.contextmanager
def _folder_outages() -> Iterator[None]:
    try:
        yield
    except OSError as error:  # the folder is full, read-only or another user's: not the fault of a mail
        raise DependencyUnavailable("mail folder", str(error)) from error
