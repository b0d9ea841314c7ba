"""Checks for ``manage.py check``: settings and stores that would fail later."""

from __future__ import annotations

from typing import Any

from django.conf import settings as project
from django.core import checks
from django.utils.module_loading import import_string

from rqjobs.config.settings import is_of_django, variables
from rqjobs.errors import InvalidSettings
from rqjobs.integrations.bridge import load_framework_settings
from rqjobs.integrations.django.conf import configured, overrides


def check_settings(**_: Any) -> list[checks.CheckMessage]:
    """Returns the faults of ``RQJOBS`` and of the environment, each with its variable."""
    found: list[checks.CheckMessage] = []
    try:
        load_framework_settings(overrides())
    except InvalidSettings as error:
        found += [
            checks.Error(fault, hint="Fix RQJOBS in your settings, or the variable of this name.", id="rqjobs.E001")
            for fault in error.faults
        ]
    access = configured().get("DASHBOARD_ACCESS")
    if isinstance(access, str):
        try:
            import_string(access)
        except ImportError as error:
            found.append(checks.Error(f"DASHBOARD_ACCESS: {error}", id="rqjobs.E002"))
    return found


def check_stores(**_: Any) -> list[checks.CheckMessage]:
    """Warns about stores for development on a server: SQLite, the embedded Redis."""
    try:
        settings = load_framework_settings(overrides())
    except InvalidSettings:
        return []
    found: list[checks.CheckMessage] = []
    if is_of_django(variables().get("EMAIL_BACKEND")) and settings.rqjobs_email_backend is None:
        found.append(
            checks.Warning(
                "EMAIL_BACKEND names a class of Django's, so mails of rqjobs are written to files and not sent.",
                hint="Set RQJOBS_EMAIL_BACKEND to file, smtp, sendgrid or resend.",
                id="rqjobs.W003",
            )
        )
    if not project.DEBUG and settings.redis_url.get_secret_value().startswith("embedded:"):
        found.append(
            checks.Warning(
                "REDIS_URL is not set: the web processes and the workers of one machine share an embedded Redis.",
                hint="Set REDIS_URL, or RQJOBS = {'REDIS_URL': ...}, before a second machine runs.",
                id="rqjobs.W001",
            )
        )
    if not project.DEBUG and settings.webhook_allow:
        found.append(
            checks.Warning(
                f"WEBHOOK_ALLOW exempts {' '.join(settings.webhook_allow)} from the guard against requests into your "
                "own network.",
                hint="It is meant for development.",
                id="rqjobs.W002",
            )
        )
    return found
