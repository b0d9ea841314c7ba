"""The key for download links, sessions, visitor keys and encryption: RQJOBS_SECRET_KEY, or a generated one."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from rqjobs.config.private_files import open_new
from rqjobs.config.settings import data_folder, get_settings


def secret_key() -> str:
    """Returns RQJOBS_SECRET_KEY, or a generated key of 43 random characters, kept under RQJOBS_DATA.

    Processes that start at the same time use the same key. Several machines need RQJOBS_SECRET_KEY.
    """
    settings = get_settings()
    if settings.rqjobs_secret_key is not None:
        return settings.rqjobs_secret_key.get_secret_value()
    if (kept := kept_key()) is not None:
        return kept
    file = _file()
    _make(file)
    return file.read_text(encoding="ascii")


def kept_key() -> str | None:
    """Returns the generated key under RQJOBS_DATA, or None.

    It may exist although RQJOBS_SECRET_KEY has been set since.
    """
    try:
        return _file().read_text(encoding="ascii") or None
    except (OSError, UnicodeDecodeError):
        return None


def _file() -> Path:
    return get_settings().rqjobs_data / "secret_key"


def _make(file: Path) -> None:
    data_folder()
    draft = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with open_new(draft) as opened:
        opened.write(secrets.token_urlsafe(32).encode())
    try:
        os.link(draft, file)  # atomic, and the first one wins
    except FileExistsError:
        pass
    finally:
        draft.unlink()
