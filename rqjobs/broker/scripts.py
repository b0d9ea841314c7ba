"""Loads the Lua scripts, which run the steps that must be atomic in Redis."""

from __future__ import annotations

from functools import cache
from importlib import resources

from redis.commands.core import Script

_BEFORE = {
    "breaker": ("destination",),
    "reserve": ("broken_keys", "destination", "holds", "groups", "group_turns"),
    "finish": ("broken_keys", "dead", "batch", "holds", "groups"),
    "hold": ("broken_keys", "holds"),
    "ended": ("broken_keys", "ready", "batch", "groups"),
    "release": ("broken_keys", "ready"),
    "trim": ("broken_keys", "dead", "delete"),
    "empty": ("broken_keys", "batch", "delete", "groups"),
    "ungroup": ("broken_keys", "groups", "group_turns"),
    "enqueue": ("broken_keys", "dead", "batch", "groups", "debounce"),
    "requeue": ("broken_keys", "dead", "batch", "groups"),
    **dict.fromkeys(("purge", "recover"), ("broken_keys", "dead", "batch", "delete", "groups")),
    "batch_cancel": ("broken_keys", "batch", "delete", "groups"),
    **dict.fromkeys(("batch_open", "batch_seal", "batch_check"), ("broken_keys", "batch")),
    **dict.fromkeys(("run_now", "schedule"), ("broken_keys", "groups")),
    **dict.fromkeys(("dead_groups", "renew"), ("broken_keys",)),
}
"""The files that are put before a script, because a script in Redis cannot load others."""


def source(name: str) -> bytes:
    """Returns the text of ``rqjobs/broker/lua/<name>.lua``, preceded by the files that it uses."""
    parts = (*_BEFORE.get(name, ()), name)
    return b"".join(resources.files("rqjobs.broker.lua").joinpath(f"{part}.lua").read_bytes() for part in parts)


@cache
def load_script(name: str) -> Script:
    """Returns ``rqjobs/broker/lua/<name>.lua``, to be called with ``client=``.

    After the first call only its hash is sent.
    """
    return Script(None, source(name))  # type: ignore[arg-type]  # the client is given at each call
