"""Secrets in jobs: hidden wherever a job is shown, and kept when its other fields are edited."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

MASK = "(hidden)"
"""What stands in the place of a secret."""

_SECRET = re.compile(r"secret|passw|token|api[-_]?key|authori[sz]ation|credential|cookie", re.IGNORECASE)
_ALL_SECRET = re.compile(r"headers", re.IGNORECASE)


def mask(value: Any, *, every: bool = False) -> Any:
    """``value`` with every header's value, and whatever a name like ``token`` or ``password`` says, hidden."""
    if isinstance(value, dict):
        return {
            name: MASK
            if (every or _SECRET.search(str(name))) and isinstance(item, str | int | float)
            else mask(item, every=every or bool(_ALL_SECRET.fullmatch(str(name))))
            for name, item in value.items()
        }
    return [mask(item) for item in value] if isinstance(value, list | tuple) else value


def unmask(edited: Any, original: Any) -> Any:
    """``edited`` with what was left hidden put back from ``original``.

    Raises:
        ValueError: something hidden is where the original has nothing.
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
        return [unmask(item, items[i] if i < len(items) else None) for i, item in enumerate(edited)]
    return edited


def without_path(endpoint: str) -> str:
    """An endpoint's name; of a URL, which may hold a token, where it leads."""
    parts = urlsplit(endpoint)
    return f"{parts.netloc}/..." if parts.scheme in ("http", "https") else endpoint
