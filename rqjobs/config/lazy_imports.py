"""Imports the names of a package at their first use: ``rqjobs --help`` needs none of them, few programs need all."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


def lazy_exports(
    package: str, modules: Mapping[str, tuple[str, ...]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns ``__getattr__`` and ``__dir__`` (PEP 562) for ``package``, which import names when they are used.

    ``modules`` lists the names that each module defines. Building all job models alone takes as long as the rest of a
    command.
    """
    module_of = {name: module for module, names in modules.items() for name in names}
    namespace = vars(sys.modules[package])

    def getattribute(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with _without_gc():
            namespace[name] = value = getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)
        return value

    return getattribute, lambda: sorted({*namespace, *module_of})


@contextmanager
def _without_gc() -> Iterator[None]:
    """Suspends garbage collection during imports, which leave almost no garbage: it takes a tenth of their time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
