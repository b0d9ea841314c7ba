"""The parts that all integrations share: a framework's settings, and our pages behind its login."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from rqjobs.config.settings import Settings, use_settings, variables

if TYPE_CHECKING:
    from flask import Flask

# The pages are imported late, because a web process that never shows them does not need them.

_USER = "rqjobs.user"
"""The key in the WSGI environ for the user that the surrounding app has admitted. No request header can set it."""


_handed_down: tuple[dict[str, str], str] = ({}, "")
"""The framework's settings, and the module to import first, for child processes."""


def use_framework_settings(overrides: Mapping[str, Any], module: str) -> None:
    """Uses the framework's settings in this process; they override the environment and ``.env``.

    Args:
        overrides: the settings, by the variables' names.
        module: the module that child processes import before those of RQJOBS_IMPORT; may be empty.

    Raises:
        InvalidSettings: the settings are invalid; the message names every fault with its variable.
    """
    global _handed_down  # noqa: PLW0603
    _handed_down = ({name: _plain(value) for name, value in overrides.items() if value is not None}, module)
    use_settings(load_framework_settings(overrides))


def load_framework_settings(overrides: Mapping[str, Any]) -> Settings:
    """Returns the environment's settings, overridden by the framework's; see :func:`use_framework_settings`."""
    return Settings.load({name: _plain(value) for name, value in overrides.items() if value is not None})


def child_environment() -> dict[str, str]:
    """Returns the environment with the framework's settings, for child processes."""
    settings, module = _handed_down
    named = ({**variables(), **settings}.get("RQJOBS_IMPORT") or "").split()
    return {**os.environ, **settings, "RQJOBS_IMPORT": " ".join(dict.fromkeys([*module.split(), *named]))}


def _plain(value: Any) -> str:
    """Returns a setting as text for the environment."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}s"
    if isinstance(value, str | int | float | Path):
        return str(value)
    if isinstance(value, Iterable):
        return " ".join(str(item) for item in value)
    return str(value)


def dashboard_app() -> Flask:
    """Returns the dashboard for use behind the app's login.

    It refuses requests without :func:`admitted` in their environ.
    """
    from flask import request

    from rqjobs.web import create_app

    return create_app(let_in=lambda: request.environ.get(_USER) is not None)


def downloads_app() -> Flask:
    """Returns the download page, for the files of the user in the environ."""
    from flask import Flask, request

    from rqjobs.web.downloads import downloads

    app = Flask("rqjobs.downloads")
    app.register_blueprint(downloads(lambda: request.environ.get(_USER)))
    return app


def admitted(environ: Mapping[str, Any], user: str | None, prefix: str, path: str) -> dict[str, Any]:
    """Returns ``environ`` for a request of ``user`` that is passed to one of our apps, mounted at ``prefix``."""
    inner = {key: value for key, value in environ.items() if not key.startswith(("werkzeug.", "flask."))}
    inner |= {"SCRIPT_NAME": prefix.rstrip("/"), "PATH_INFO": "/" + path.lstrip("/")}
    inner.pop(_USER, None)
    if user is not None:
        inner[_USER] = user
    return inner


class Lazy:
    """A WSGI app that is made at its first request, because what it needs may be missing when routes are set up."""

    def __init__(self, make: Callable[[], Flask]) -> None:
        self._make = make
        self._app: Flask | None = None

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        """Handles a request (PEP 3333)."""
        if self._app is None:
            self._app = self._make()
        return self._app(environ, start_response)
