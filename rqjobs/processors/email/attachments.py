"""Attachments: read when the mail is sent, from where the settings allow, never more than they allow."""

from __future__ import annotations

import mimetypes
import posixpath
from pathlib import Path
from urllib.parse import urlsplit

from rqjobs.errors import PermanentFailure
from rqjobs.jobs.email import Attachment
from rqjobs.processors.email.message import File
from rqjobs.settings import Settings

_BYTES = "application/octet-stream"


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
        name = attachment.name or posixpath.basename(urlsplit(attachment.source).path) or "attachment"
        kind = attachment.content_type or mimetypes.guess_type(name)[0] or _BYTES
        if kind.startswith(
            ("message/", "multipart/")
        ):  # never in base64 (RFC 2046, 5.2.1), and a file may hold anything
            kind = _BYTES
        files.append(File(name, kind, data, attachment.content_id))
    return files


def _read(source: str, left: int, settings: Settings) -> bytes:
    import fsspec

    if "::" in source or urlsplit(source).scheme in ("http", "https"):
        # fsspec would ask any host, our own network too; and a chain hides what it ends at.
        raise PermanentFailure(f"attachment {source}: not from the web; put it into a folder or a store (s3://...)")
    if not _allowed(source, settings.email_attachments):
        raise PermanentFailure(f"attachment {source}: not in a place that EMAIL_ATTACHMENTS names")
    try:
        with fsspec.open(source, "rb") as file:
            data: bytes = file.read(left + 1)
    except (FileNotFoundError, IsADirectoryError):
        raise PermanentFailure(f"attachment {source}: there is no such file where the worker runs") from None
    except PermissionError:
        raise PermanentFailure(f"attachment {source}: the worker may not read it") from None
    except (ValueError, ImportError) as error:  # fsspec: an unknown scheme, or its package is not installed
        raise PermanentFailure(f"attachment {source}: {error}") from None
    if len(data) > left:
        limit = settings.email_max_attachments
        raise PermanentFailure(f"attachment {source}: EMAIL_MAX_ATTACHMENTS allows {limit} bytes; send a link instead")
    return data


def _allowed(source: str, places: tuple[str, ...]) -> bool:
    if not places:
        return True
    if "://" in source and not source.startswith("file://"):
        inside = ".." not in source.split("/")
        return inside and any(source.startswith(place.rstrip("/") + "/") for place in places if "://" in place)
    path = Path(source.removeprefix("file://")).resolve()  # symbolic links followed, ".." gone
    return any(path.is_relative_to(Path(place).resolve()) for place in places if "://" not in place)
