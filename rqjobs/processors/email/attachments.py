"""Attachments: read when the mail is sent, from where the settings allow, never more than they allow."""

from __future__ import annotations

import errno
import mimetypes
import os.path
import posixpath
from pathlib import Path
from typing import cast

from rqjobs.errors import PermanentFailure
from rqjobs.jobs.email import Attachment
from rqjobs.processors.email.message import File
from rqjobs.settings import Settings

_BYTES = "application/octet-stream"
_NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}


def read_attachments(attachments: list[Attachment], settings: Settings) -> list[File]:
    """The files of a mail.

    Raises:
        PermanentFailure: one is missing, not allowed by EMAIL_ATTACHMENTS, or all are larger than
            EMAIL_MAX_ATTACHMENTS together.
        OSError: a store does not answer; trying again makes sense.
    """
    files: list[File] = []
    left = settings.email_max_attachments
    for attachment in attachments:
        data = _read(attachment.source, left, settings)
        left -= len(data)
        path = _local(attachment.source) or attachment.source.partition("?")[0]  # s3://...?versionId=...
        name = attachment.name or posixpath.basename(path) or "attachment"
        guess, packed = mimetypes.guess_type(name)
        kind = attachment.content_type or (not packed and guess) or _BYTES
        if kind.startswith(
            ("message/", "multipart/")
        ):  # never in base64 (RFC 2046, 5.2.1), and a file may hold anything
            kind = _BYTES
        files.append(File(name, kind, data, attachment.content_id))
    return files


def _read(source: str, left: int, settings: Settings) -> bytes:
    if "::" in source or source.lower().startswith(("http://", "https://")):
        # fsspec would ask any host, our own network too; and a chain hides what it ends at.
        raise PermanentFailure(f"attachment {source}: not from the web; put it into a folder or a store (s3://...)")
    try:
        data = _bytes(source, left + 1, settings.email_attachments)
    except PermissionError:
        raise PermanentFailure(f"attachment {source}: the worker may not read it") from None
    except OSError as error:
        if error.errno not in _NO_FILE and not isinstance(error, FileNotFoundError | IsADirectoryError):
            raise
        raise PermanentFailure(f"attachment {source}: there is no such file where the worker runs") from None
    except (ValueError, ImportError) as error:  # fsspec: an unknown scheme, or its package is not installed
        raise PermanentFailure(f"attachment {source}: {error}") from None
    if len(data) > left:
        limit = settings.email_max_attachments
        raise PermanentFailure(f"attachment {source}: EMAIL_MAX_ATTACHMENTS allows {limit} bytes; send a link instead")
    return data


def _bytes(source: str, number: int, places: tuple[str, ...]) -> bytes:
    """The first ``number`` bytes of what is at ``source``."""
    local = _local(source)
    if local is not None:
        path = Path(os.path.realpath(local))  # symbolic links followed, ".." gone
        allowed = any(path.is_relative_to(os.path.realpath(place)) for place in places if "://" not in place)
    else:
        inside = ".." not in source.split("/")
        allowed = inside and any(source.startswith(place.rstrip("/") + "/") for place in places if "://" in place)
    if places and not allowed:
        raise PermanentFailure(f"attachment {source}: not in a place that EMAIL_ATTACHMENTS names")
    if local is not None:
        if path.exists() and not path.is_file():  # a named pipe would be waited for without end
            raise IsADirectoryError
        with path.open("rb") as file:
            return file.read(number)
    import fsspec

    with fsspec.open(source, "rb") as file:
        return cast("bytes", file.read(number))


def _local(source: str) -> str | None:
    """The path of a file of this machine, as it is written: fsspec would expand ``~``, ``file:`` and ``*``."""
    return source.removeprefix("file://") if "://" not in source or source.startswith("file://") else None
