"""Derives our settings from ``RQJOBS`` in the project's settings, and from the project's other settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from django.conf import settings

from rqjobs.config.settings import variables
from rqjobs.integrations.django.testdb import database_for_tests

OWN = ("DASHBOARD_ACCESS", "ON_COMMIT")
"""The keys of ``RQJOBS`` that configure this integration, and are no settings of rqjobs."""


def configured() -> dict[str, Any]:
    """Returns ``RQJOBS`` of the project's settings."""
    return dict(getattr(settings, "RQJOBS", {}))


def overrides() -> dict[str, Any]:
    """Returns our settings by name: those in ``RQJOBS``, and defaults from the project if the environment has none.

    The defaults: DATABASE_URL is the project's default database, so that exports read its tables and the outbox is
    written in its transactions (in tests, the test database); RQJOBS_SECRET_KEY is derived from SECRET_KEY,
    RQJOBS_SECRET_KEY_OLD from SECRET_KEY_FALLBACKS; EMAIL_TEMPLATES is the first ``email`` folder in a template folder.
    """
    given = {name: value for name, value in configured().items() if name not in OWN}
    defaults: dict[str, Any] = {
        "DATABASE_URL": database_url(settings.DATABASES.get("default", {})) or database_for_tests(),
        "RQJOBS_SECRET_KEY": _derived_key(settings.SECRET_KEY),
        "RQJOBS_SECRET_KEY_OLD": " ".join(filter(None, map(_derived_key, settings.SECRET_KEY_FALLBACKS))),
        "EMAIL_TEMPLATES": _email_folder(),
    }
    said = variables()
    return {name: value for name, value in defaults.items() if value and not said.get(name)} | given


def database_url(database: Mapping[str, Any]) -> str | None:
    """Returns the URL of one of Django's databases; None for a kind that rqjobs does not support."""
    engine = str(database.get("ENGINE", "")).rpartition(".")[2]
    name = str(database.get("NAME", ""))
    if engine == "sqlite3" and name and ":memory:" not in name and "mode=memory" not in name:
        return f"sqlite:///{Path(name).absolute()}"
    if engine not in ("postgresql", "postgis", "postgresql_psycopg2"):
        return None
    login = quote(str(database.get("USER") or ""), safe="")
    if database.get("PASSWORD"):
        login += ":" + quote(str(database["PASSWORD"]), safe="")
    host, port = str(database.get("HOST") or ""), database.get("PORT")
    if host.startswith("/"):  # the folder of a Unix socket
        place, query = "", f"?host={quote(host, safe='')}" + (f"&port={port}" if port else "")
    else:
        place, query = host + (f":{port}" if port else ""), ""
    return f"postgresql://{login}{'@' if login else ''}{place}/{quote(name, safe='')}{query}"


def _derived_key(key: str) -> str | None:
    from django.utils.crypto import salted_hmac

    return salted_hmac("rqjobs", "secret key", secret=key, algorithm="sha256").hexdigest() if key else None


def _email_folder() -> str | None:
    for engine in settings.TEMPLATES:
        for folder in engine.get("DIRS", ()):
            if (Path(folder) / "email").is_dir():
                return str(Path(folder) / "email")
    return None
