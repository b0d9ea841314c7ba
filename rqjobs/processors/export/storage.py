"""The stores for finished exports: a folder, or any fsspec URL. A file appears complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

from rqjobs.attempt import JOB_ID
from rqjobs.config.file_urls import OBJECT_STORES, is_remote
from rqjobs.config.private_files import make_private_folder
from rqjobs.config.settings import close_data_folder, data_folder, get_settings
from rqjobs.errors import DependencyUnavailable

_WHOLE_AT_ONCE = (*OBJECT_STORES, "memory")
"""Stores in which a file appears when its upload is complete. In others it is uploaded under another name, then moved.
"""


WORKSPACE_ENDS = ("part", "checkpoint", "draft")
"""The suffixes of the partial file, of its checkpoint, and of a checkpoint that is being written."""


class StorageUnavailable(DependencyUnavailable):
    """EXPORT_URL cannot be used: the store is full, read-only, missing, or does not answer.

    The message names the fix.
    """

    def __init__(self, reason: str) -> None:
        super().__init__("export store", reason)


_NOT_THE_FILES = {
    errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENOTDIR, errno.ENOENT,
    errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENODEV, errno.ENXIO,
    errno.EEXIST, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EBUSY,
}  # fmt: skip
"""Errors of the folder (network file systems included) that are never the fault of one export."""


@contextlib.contextmanager
def storing() -> Iterator[None]:
    """Translates errors that mean "the store does not work" to StorageUnavailable; all others pass unchanged."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NOT_THE_FILES:
            raise
        raise StorageUnavailable(f"EXPORT_URL: {error}") from error


class Storage(ABC):
    """A store for finished files."""

    workspace: Path
    """The local folder for partial files."""

    @abstractmethod
    def publish(self, partial: Path, name: str) -> None:
        """Publishes the file ``partial``, which is already synced to disk, as ``name``; replaces an older file."""

    @abstractmethod
    def open(self, name: str) -> IO[bytes]:
        """Opens the file for reading.

        Raises:
            FileNotFoundError: the file does not exist.
        """

    @abstractmethod
    def delete(self, name: str) -> None:
        """Deletes the file if it exists."""

    def local_path(self, name: str) -> Path | None:  # noqa: ARG002
        """Returns the path of the file on this machine; None if it is remote.

        For servers that send files themselves.
        """
        return None

    def presign(self, name: str, lifetime: timedelta, download_name: str) -> str | None:  # noqa: ARG002
        """Returns a presigned link, which works for everyone; None if the store does not support that."""
        return None


class Folder(Storage):
    """A folder of this machine, local or mounted."""

    def __init__(self, folder: Path) -> None:
        self.folder = self.workspace = folder

    def publish(self, partial: Path, name: str) -> None:
        """Renames the file within the folder, which is atomic, and syncs the folder."""
        partial.replace(self.folder / name)
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def open(self, name: str) -> IO[bytes]:
        """Opens the file for reading."""
        return (self.folder / name).open("rb")

    def delete(self, name: str) -> None:
        """Deletes the file if it exists."""
        (self.folder / name).unlink(missing_ok=True)

    def local_path(self, name: str) -> Path | None:
        """Returns the path of the file."""
        return self.folder / name


class Remote(Storage):
    """A file system of fsspec."""

    def __init__(self, url: str, workspace: Path) -> None:
        import fsspec

        self.workspace = workspace
        try:
            self._fs, self._base = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            extra = "pip install 'rqjobs[s3]'" if url.startswith("s3") else "install its fsspec package"
            raise StorageUnavailable(f"EXPORT_URL: {error}; {extra}, or use a folder") from error
        protocols = self._fs.protocol if isinstance(self._fs.protocol, tuple) else (self._fs.protocol,)
        self._whole_at_once = any(protocol in _WHOLE_AT_ONCE for protocol in protocols)

    def publish(self, partial: Path, name: str) -> None:
        """Uploads the file; where uploads are not atomic, under another name that is then changed."""
        try:
            self._upload(partial, name)
        except Exception as error:  # each store has its own types of errors; the local file cannot be the cause
            raise StorageUnavailable(f"EXPORT_URL: {type(error).__name__}: {error}") from error
        partial.unlink()

    def _upload(self, partial: Path, name: str) -> None:
        path = self._path(name)
        if self._whole_at_once:
            self._fs.put_file(str(partial), path)
            return
        aside = self._path(f".{name}.part")
        self._fs.makedirs(self._base, exist_ok=True)
        try:
            self._fs.put_file(str(partial), aside)
            self._fs.mv(aside, path)
        except BaseException:
            with contextlib.suppress(Exception):  # it may not exist, or the store may not answer
                self._fs.rm_file(aside)
            raise

    def open(self, name: str) -> IO[bytes]:
        """Opens the file for reading."""
        file: IO[bytes] = self._fs.open(self._path(name), "rb")
        return file

    def delete(self, name: str) -> None:
        """Deletes the file if it exists."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    def presign(self, name: str, lifetime: timedelta, download_name: str) -> str | None:
        """Returns a presigned link (S3 allows at most seven days); None if the store does not support that."""
        options: dict[str, Any] = {}
        if "s3" in self._fs.protocol:
            options["ResponseContentDisposition"] = f'attachment; filename="{download_name}"'
        try:
            link: str = self._fs.sign(self._path(name), expiration=int(lifetime.total_seconds()), **options)
        except NotImplementedError:
            return None
        except Exception as error:  # no credentials, for example
            raise StorageUnavailable(f"EXPORT_URL: {type(error).__name__}: {error}") from error
        return link

    def _path(self, name: str) -> str:
        return f"{self._base.rstrip('/')}/{name}" if self._base else name


def get_storage(url: str | None = None) -> Storage:
    """Returns the store of ``url`` (by default EXPORT_URL), and makes its folder.

    Raises:
        StorageUnavailable: the folder cannot be made, or fsspec does not support the URL or lacks a package for it.
    """
    url = url if url is not None else get_settings().export_url
    close_data_folder()
    if is_remote(url):
        storage: Storage = Remote(url, data_folder() / "exports-partial")
    else:
        storage = Folder(Path(url.removeprefix("file://")).absolute())
    with storing():
        make_private_folder(storage.workspace)
    return storage


def name_of_file(data_type: str, job_id: str, suffix: str) -> str:
    """Returns the name of a job's file. A job id that is not safe in a file name is replaced by its digest."""
    if not JOB_ID.fullmatch(job_id):
        job_id = f"id-{hashlib.sha256(job_id.encode(errors='surrogatepass')).hexdigest()[:32]}"
    return f"{data_type}-{job_id}.{suffix}"


def workspace_file(storage: Storage, name: str, end: str) -> Path:
    """Returns the path of a workspace file for the final file ``name``; ``end`` is one of WORKSPACE_ENDS."""
    return storage.workspace / f".{name}.{end}"


def remove_workspace_files(storage: Storage, name: str) -> None:
    """Deletes the workspace files that an interrupted run has left for the file ``name``."""
    for end in WORKSPACE_ENDS:
        workspace_file(storage, name, end).unlink(missing_ok=True)
