"""The key behind download links, sessions and visitor keys: RQJOBS_SECRET_KEY, or one made once and kept."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from rqjobs.config.settings import get_settings


def secret_key() -> str:
    """RQJOBS_SECRET_KEY; when unset, 43 random characters, made at the first call and kept under RQJOBS_DATA.

    Processes that start at the same moment agree on one. Several machines need RQJOBS_SECRET_KEY set.
    """
    settings = get_settings()
    if settings.rqjobs_secret_key is not None:
        return settings.rqjobs_secret_key.get_secret_value()
    file = settings.rqjobs_data / "secret_key"
    if not file.exists():
        _make(file)
    return file.read_text(encoding="ascii")


def _make(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    draft.touch(mode=0o600)
    draft.write_text(secrets.token_urlsafe(32), encoding="ascii")
    try:
        os.link(draft, file)  # whole or not at all, and the first one wins
    except FileExistsError:
        pass
    finally:
        draft.unlink()
