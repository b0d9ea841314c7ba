"""Lua scripts: the steps that must be atomic in Redis."""

from __future__ import annotations

from functools import cache
from importlib import resources

from redis.commands.core import Script

_BEFORE = {
    "breaker": ("line",),
    "reserve": ("line", "parking", "holds"),
    "finish": ("dead", "holds"),
    "hold": ("holds",),
    **dict.fromkeys(("ended", "release"), ("ready",)),
    **dict.fromkeys(("enqueue", "purge", "recover", "requeue", "trim"), ("dead",)),
}
"""What other files stand before a script: Redis has no libraries for scripts."""


def source(name: str) -> bytes:
    """The text of ``rqjobs/broker/lua/<name>.lua``, what belongs before it included."""
    parts = (*_BEFORE.get(name, ()), name)
    return b"".join(resources.files("rqjobs.broker.lua").joinpath(f"{part}.lua").read_bytes() for part in parts)


@cache
def load_script(name: str) -> Script:
    """``rqjobs/broker/lua/<name>.lua``, to be called with ``client=``; only its hash travels after the first call."""
    return Script(None, source(name))  # type: ignore[arg-type]  # the client is given at each call
