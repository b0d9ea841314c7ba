"""Reads attachments when the mail is sent, only from places that EMAIL_ATTACHMENTS allows, up to a total size."""

from __future__ import annotations

import errno
import mimetypes
import os.path
import posixpath
import stat
import time
from pathlib import Path
from typing import cast

from rqjobs.config.file_urls import Place, is_remote
from rqjobs.config.settings import Settings
from rqjobs.errors import PermanentFailure
from rqjobs.jobs.email import Attachment
from rqjobs.processors.email.message import File
from rqjobs.security.ssrf import Guard, TargetRefused

_BYTES = "application/octet-stream"
_NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
_NEVER = ("/proc", "/sys", "/dev")
"""Never read, even if EMAIL_ATTACHMENTS allows it: the environment with all secrets, and devices."""
_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | getattr(os, "O_PATH", os.O_RDONLY)
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # opening a named pipe would block for ever
_CONNECT, _READ, _WHOLE = 5.0, 10.0, 30.0
"""The most seconds for the connection, for one read, and for a whole file from the web."""
_CHUNK = 64 * 1024


def read_attachments(attachments: list[Attachment], settings: Settings) -> list[File]:
    """Returns the files of a mail.

    Raises:
        PermanentFailure: one is missing or not allowed by EMAIL_ATTACHMENTS, or they are larger than
            EMAIL_MAX_ATTACHMENTS in total.
        OSError: a store or a web server does not answer; a retry may succeed.
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
        ):  # never in base64 (RFC 2046, 5.2.1), but a file may have any bytes
            kind = _BYTES
        files.append(File(name, kind, data, attachment.content_id))
    return files


def _read(source: str, left: int, settings: Settings) -> bytes:
    try:
        data = _bytes(source, left + 1, settings)
    except PermissionError:
        raise PermanentFailure(f"attachment {source}: the worker may not read it") from None
    except OSError as error:
        if error.errno not in _NO_FILE and not isinstance(error, FileNotFoundError | IsADirectoryError):
            raise
        raise PermanentFailure(f"attachment {source}: there is no such file where the worker runs") from None
    except (ValueError, ImportError, TargetRefused) as error:  # ImportError: fsspec lacks a package
        raise PermanentFailure(f"attachment {source}: {error}") from None
    if len(data) > left:
        limit = settings.email_max_attachments
        raise PermanentFailure(f"attachment {source}: EMAIL_MAX_ATTACHMENTS allows {limit} bytes; send a link instead")
    return data


def _bytes(source: str, number: int, settings: Settings) -> bytes:
    """Returns the first ``number`` bytes of the file at ``source``."""
    local = _local(source)
    if local is not None:
        return _read_file(_allowed_path(source, local, settings), number)
    place = Place.parse(source)
    if not place.host or not any(
        Place.parse(allowed).contains(place) for allowed in settings.email_attachments if is_remote(allowed)
    ):
        raise _refused(source)
    if place.on_the_web:
        return _fetch(source, number, settings)
    import fsspec

    store, path = fsspec.core.url_to_fs(source)  # not fsspec.open, which expands *
    with store.open(path, "rb") as file:
        return cast("bytes", file.read(number))


def _local(source: str) -> str | None:
    """Returns the path of a file on this machine, unchanged: fsspec would expand ``~``, ``file:`` and ``*``."""
    return None if is_remote(source) else source.removeprefix("file://")


def _refused(source: str) -> PermanentFailure:
    return PermanentFailure(
        f"attachment {source}: not in a place that EMAIL_ATTACHMENTS names; add its folder, or the URL that it is below"
    )


def _allowed_path(source: str, local: str, settings: Settings) -> Path:
    """Returns the path without symbolic links and ``..``, if the file may be read."""
    path = Path(os.path.realpath(local))
    never = [*map(Path, _NEVER), Path(os.path.realpath(settings.rqjobs_data))]
    if any(path.is_relative_to(folder) for folder in never):
        raise PermanentFailure(f"attachment {source}: nothing below {', '.join(_NEVER)} or RQJOBS_DATA is attached")
    folders = [place.removeprefix("file://") for place in settings.email_attachments if not is_remote(place)]
    if not any(path.is_relative_to(os.path.realpath(folder)) for folder in folders):
        raise _refused(source)
    return path


def _read_file(path: Path, number: int) -> bytes:
    """Reads the file; opens ``path`` folder by folder, so that a symbolic link made after the check is not followed."""
    folder = os.open("/", _FOLDER)
    try:
        for part in path.parts[1:-1]:
            folder, above = os.open(part, _FOLDER, dir_fd=folder), folder
            os.close(above)
        file = os.open(path.name, _FILE, dir_fd=folder)
    finally:
        os.close(folder)
    with os.fdopen(file, "rb") as opened:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise IsADirectoryError
        return opened.read(number)


def _fetch(url: str, number: int, settings: Settings) -> bytes:
    """Reads a file from a public web server: without redirects, proxies of the environment, or private networks."""
    from urllib3.exceptions import HTTPError

    from rqjobs.security.guarded_session import guarded_session

    deadline = time.monotonic() + _WHOLE
    guard = Guard.build(settings.webhook_allow, settings.webhook_ports)
    with (
        guarded_session(guard, pool_size=1) as session,
        session.get(
            url, headers={"Accept-Encoding": "identity"}, timeout=(_CONNECT, _READ), allow_redirects=False, stream=True
        ) as response,
    ):
        status = response.status_code
        if status in (408, 425, 429) or status >= 500:  # noqa: PLR2004
            raise OSError(f"attachment {url}: the server answers {status}")
        if status != 200 or response.headers.get("Content-Encoding", "identity") != "identity":  # noqa: PLR2004
            raise PermanentFailure(f"attachment {url}: the server answers {status}, not with the file as it is")
        data = bytearray()
        try:
            while len(data) < number and (
                chunk := response.raw.read1(min(_CHUNK, number - len(data)), decode_content=False)
            ):
                data += chunk
                if time.monotonic() > deadline:
                    raise TimeoutError(f"attachment {url}: not complete within {_WHOLE:g} s")
        except HTTPError as error:
            raise OSError(f"attachment {url}: {error}") from error
        return bytes(data)
