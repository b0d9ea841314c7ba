"""Lua scripts: the steps that must be atomic in Redis."""

from __future__ import annotations

from functools import cache
from importlib import resources

from redis.commands.core import Script

_BEFORE = {"reserve": "parking"}
"""Scripts that another one stands before."""


def source(name: str) -> bytes:
    """The text of ``rqjobs/lua/<name>.lua``, what belongs before it included."""
    parts = [_BEFORE[name], name] if name in _BEFORE else [name]
    return b"".join(resources.files("rqjobs.lua").joinpath(f"{part}.lua").read_bytes() for part in parts)


@cache
def load_script(name: str) -> Script:
    """``rqjobs/lua/<name>.lua``, to be called with ``client=``; only its hash travels after the first call."""
    return Script(None, source(name))  # type: ignore[arg-type]  # the client is given at each call
