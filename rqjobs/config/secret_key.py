"""The key behind download links, sessions, visitor keys and encryption: RQJOBS_SECRET_KEY, or one made and kept."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from rqjobs.config.private_files import open_new
from rqjobs.config.settings import data_folder, get_settings


def secret_key() -> str:
    """RQJOBS_SECRET_KEY; when unset, 43 random characters, made at the first call and kept under RQJOBS_DATA.

    Processes that start at the same moment agree on one. Several machines need RQJOBS_SECRET_KEY set.
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
    """The key that was made and is kept under RQJOBS_DATA, or None. It may be there beside RQJOBS_SECRET_KEY: from
    before that was set.
    """  # noqa: D205
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
        os.link(draft, file)  # whole or not at all, and the first one wins
    except FileExistsError:
        pass
    finally:
        draft.unlink()
