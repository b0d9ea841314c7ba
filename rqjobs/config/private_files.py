"""Files and folders that only their owner can read, with any umask; symbolic links of other users are not followed."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

FOLDER_MODE, FILE_MODE = 0o700, 0o600
"""The modes of all folders and files that rqjobs makes."""

_OTHERS = 0o077  # the bits of the group and of all others


def make_private_folder(folder: Path) -> None:
    """Makes ``folder`` and its missing parents for this user only; an existing folder is unchanged.

    Raises:
        OSError: it cannot be made, or another user's symbolic link has its path.
    """
    if not folder.exists():
        for missing in reversed([folder, *(above for above in folder.parents if not above.exists())]):
            missing.mkdir(mode=FOLDER_MODE, exist_ok=True)
    if folder.is_symlink() and folder.lstat().st_uid not in (0, os.getuid()):
        raise PermissionError(f"{folder} is a symbolic link of another user: remove it")


def close_folder(folder: Path, own: Collection[str]) -> None:
    """Removes other users' access to what rqjobs made in ``folder``: older versions made files with more access.

    Only files of this user are changed, and symbolic links are not followed. A subfolder without access for others is
    not searched, because its contents cannot be reached.

    Args:
        folder: closed as well, unless it contains other names: then it may belong to the app.
        own: the names that rqjobs makes in it.
    """
    with contextlib.suppress(OSError):  # it was deleted, or the file system has no modes
        foreign = False
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".secret_key.") or entry.name in own:
                    _close(Path(entry.path))
                else:
                    foreign = True
        if not foreign and not folder.stat().st_mode & stat.S_ISVTX:
            _close_one(folder, follow=True)


def _close(path: Path) -> None:
    with contextlib.suppress(OSError):
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_mode & _OTHERS:
            with os.scandir(path) as entries:
                inner = [Path(entry.path) for entry in entries]
            for each in inner:
                _close(each)
        _close_one(path)


def _close_one(path: Path, *, follow: bool = False) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW))
    try:
        found = os.fstat(descriptor)
        if found.st_uid == os.getuid() and found.st_mode & _OTHERS:
            os.fchmod(descriptor, stat.S_IMODE(found.st_mode) & ~_OTHERS)
    finally:
        os.close(descriptor)


def open_new(file: Path) -> BinaryIO:
    """Makes a new file for this user only, and opens it for writing.

    Raises:
        FileExistsError: the path exists, for example as a symbolic link.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(file, flags, FILE_MODE)
    os.fchmod(descriptor, FILE_MODE)  # a default ACL of the folder may have given access to others
    return os.fdopen(descriptor, "wb")


def make_private_file(file: Path) -> None:
    """Makes an empty file for this user only, unless the path exists."""
    with contextlib.suppress(FileExistsError):
        open_new(file).close()


def is_private_folder(folder: Path) -> bool:
    """Returns whether ``folder`` is a folder (not a link) of this user without access for others."""
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & _OTHERS
