"""Lua scripts: the steps that must be atomic in Redis."""

from __future__ import annotations

from functools import cache
from importlib import resources

from redis.commands.core import Script


@cache
def load_script(name: str) -> Script:
    """``rqjobs/lua/<name>.lua``, to be called with ``client=``; only its hash travels after the first call."""
    source = resources.files("rqjobs.lua").joinpath(f"{name}.lua").read_bytes()
    return Script(None, source)  # type: ignore[arg-type]  # the client is given at each call
