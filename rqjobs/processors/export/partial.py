"""The partial file of an export: locked by its writer; a retry truncates it to the last checkpoint and resumes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import time
from datetime import timedelta
from types import TracebackType
from typing import BinaryIO, Self

from rqjobs.config.private_files import FILE_MODE, open_new
from rqjobs.errors import PermanentFailure, RetryLater
from rqjobs.processors.export.reading import Key
from rqjobs.processors.export.storage import Storage, remove_workspace_files, storing, workspace_file

_CHECKPOINT_EVERY = 2.0
"""Seconds between two checkpoints: a killed run loses at most this much work."""

_WRITE_OUT_EVERY = 1_000_000
"""After this many written bytes the kernel is asked to flush them to the disk."""


class PartialFile:
    """The file ``.<name>.part`` in the workspace, and its checkpoint.

    Args:
        storage: the place where the file will be published.
        name: the name under which it will be published.
        content: a fingerprint of the content. If it differs from the checkpoint's, the file starts over.
        resumable: whether the source can be read from a key on.

    Raises:
        RetryLater: another process has locked the file: a run whose lease has expired is still writing it.
    """

    file: BinaryIO
    """Open for writing, at its end."""
    rows: int = 0
    """The number of rows in the file."""
    key: Key = None
    """The key of the last row in the file."""

    def __init__(self, storage: Storage, name: str, content: str, *, resumable: bool) -> None:
        self._storage = storage
        self._name = name
        self._content = content
        self._resumable = resumable
        self.path = workspace_file(storage, name, "part")
        self._mark = workspace_file(storage, name, "checkpoint")
        self._draft = workspace_file(storage, name, "draft")
        self._next = time.monotonic() + _CHECKPOINT_EVERY
        self._written_out = 0
        self._published = False

    def __enter__(self) -> Self:
        with storing():
            self._open()
        return self

    def _open(self) -> None:
        self.file = self._open_locked()
        end = self._resume() if self._resumable else 0
        if end == 0:
            self._mark.unlink(missing_ok=True)  # it was made for another content
        self.file.truncate(end)
        self.file.seek(end)

    def _open_locked(self) -> BinaryIO:
        while True:
            try:
                file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, FILE_MODE), "r+b", 1 << 18)
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                self.path.unlink(missing_ok=True)  # a symbolic link, made by another user with access to this folder
                continue
            if not _is_ours(file):
                file.close()
                self.path.unlink(missing_ok=True)
                continue
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(self.path.stat(), os.fstat(file.fileno())):
                    return file
            except FileNotFoundError:
                pass
            except BlockingIOError:
                file.close()
                reason = "an earlier run still writes this export"
                raise RetryLater(timedelta(seconds=5), reason, counts=False) from None
            file.close()  # another run published it between our open and our lock, so it must not be written

    def start_over(self) -> None:
        """Empties the file, and writes no checkpoints from now on: for formats that cannot be resumed."""
        self._resumable = False
        self.rows, self.key = 0, None
        self.file.truncate(0)
        self.file.seek(0)

    def checkpoint(self, rows: int, key: Key) -> None:
        """Writes a checkpoint if the last one is old enough; called after each batch.

        Args:
            rows: the number of rows in the file.
            key: the key of the last one.
        """
        position = self.file.tell()
        if position - self._written_out >= _WRITE_OUT_EVERY:
            _begin_write_out(self.file)
            self._written_out = position
        if self._resumable and key is not None and time.monotonic() >= self._next:
            self.file.flush()
            os.fsync(self.file.fileno())
            mark = {"content": self._content, "rows": rows, "key": key, "bytes": position}
            self._draft.unlink(missing_ok=True)
            with open_new(self._draft) as draft:
                draft.write(json.dumps(mark).encode())
            self._draft.replace(self._mark)
            self._next = time.monotonic() + _CHECKPOINT_EVERY

    def publish(self) -> int:
        """Publishes the file under its final name; returns its size in bytes.

        Raises:
            OSError: the path names another file now, made by another user with access to this folder.
        """
        self.file.flush()
        os.fsync(self.file.fileno())
        written = os.fstat(self.file.fileno())
        if not os.path.samestat(self.path.lstat(), written):
            raise OSError(f"{self.path} was replaced while it was written")
        size = written.st_size
        self._storage.publish(self.path, self._name)
        self._published = True
        return size

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Deletes the partial file unless a retry will resume it."""
        retried = isinstance(error, Exception) and not isinstance(error, PermanentFailure)
        # A second error of the same store must not replace the one that is being raised.
        with contextlib.suppress(OSError) if error is not None else storing():
            if self._published:
                self._mark.unlink(missing_ok=True)  # only this one: the next run may have made its .part already
            elif not (retried and self._resumable and self._mark.exists()):
                remove_workspace_files(self._storage, self._name)
        with contextlib.suppress(OSError) if error is not None else contextlib.nullcontext():
            self.file.close()

    def _resume(self) -> int:
        """Returns the byte position at which to resume; 0 if there is no usable checkpoint."""
        try:
            mark = json.loads(self._mark.read_text(encoding="utf-8"))
            if mark["content"] != self._content or mark["bytes"] > self.path.stat().st_size:
                return 0
            self.rows, self.key = int(mark["rows"]), mark["key"]
            return int(mark["bytes"])
        except (FileNotFoundError, ValueError, TypeError, LookupError):  # no checkpoint, or not one of ours
            return 0


def _is_ours(file: BinaryIO) -> bool:
    """Returns whether ``file`` is a regular file without other hard links."""
    found = os.fstat(file.fileno())
    return stat.S_ISREG(found.st_mode) and found.st_nlink <= 1


def _begin_write_out(file: BinaryIO) -> None:
    """Starts flushing the file while the next rows are made: one large sync at the end would delay other processes.

    Linux (mm/fadvise.c) begins to write pages that are declared unneeded, and returns without waiting.
    """
    if hasattr(os, "posix_fadvise"):  # macOS has none
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
