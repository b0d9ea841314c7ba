"""Secrets in jobs: hidden wherever a job is shown, and kept when its other fields are edited."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

MASK = "(hidden)"
"""What stands in the place of a secret."""

_SECRET = re.compile(r"secret|passw|token|api[-_]?key|authori[sz]ation|credential|cookie|^headers$", re.IGNORECASE)


def mask(value: Any, *, secret: bool = False) -> Any:
    """``value`` with every header, and all that a name like ``token`` or ``passwords`` stands for, hidden."""
    if isinstance(value, dict):
        return {name: mask(item, secret=secret or bool(_SECRET.search(str(name)))) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [mask(item, secret=secret) for item in value]
    return MASK if secret and isinstance(value, str | int | float) else value


def unmask(edited: Any, original: Any) -> Any:
    """``edited`` with what was left hidden put back from ``original``.

    Raises:
        ValueError: something hidden is where the original has nothing, or in a list that is longer or shorter now.
    """
    if edited == MASK:
        if original is None:
            raise ValueError(f"{MASK} stands where the job had no value: write the value out")
        return original
    if isinstance(edited, dict):
        known = original if isinstance(original, dict) else {}
        return {name: unmask(item, known.get(name)) for name, item in edited.items()}
    if isinstance(edited, list):
        items = original if isinstance(original, list) else []
        if MASK in edited and len(edited) != len(items):  # which of them is meant?
            raise ValueError(f"{MASK} stands in a list of another length than the job's: write its values out")
        return [unmask(item, items[i] if i < len(items) else None) for i, item in enumerate(edited)]
    return edited


def without_path(endpoint: str) -> str:
    """An endpoint's name; of a URL, which may hold a token, where it leads."""
    parts = urlsplit(endpoint)
    return f"{parts.netloc}/..." if parts.scheme in ("http", "https") else endpoint
