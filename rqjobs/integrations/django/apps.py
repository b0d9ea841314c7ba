"""The Django app: reads settings from ``RQJOBS``, enqueues jobs after the commit, imports each app's ``jobs.py``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.core.signals import setting_changed
from django.db import close_old_connections
from django.db.models.signals import post_migrate
from django.utils.module_loading import autodiscover_modules

from rqjobs.broker.job_writer import defer_with
from rqjobs.config.settings import use_settings
from rqjobs.decorator import surround_jobs
from rqjobs.errors import InvalidSettings
from rqjobs.integrations.bridge import use_framework_settings
from rqjobs.integrations.django.checks import check_settings, check_stores
from rqjobs.integrations.django.conf import overrides
from rqjobs.integrations.django.testdb import is_test_database, make_tables, remember_databases
from rqjobs.integrations.django.transactions import after_commit


class RQJobsConfig(AppConfig):
    """The app configuration of rqjobs in a Django project."""

    name = "rqjobs.integrations.django"
    label = "rqjobs"
    verbose_name = "Background jobs"

    def ready(self) -> None:
        """Applies the project's settings and imports every app's ``jobs`` module."""
        remember_databases()
        _load()
        post_migrate.connect(_on_post_migrate, dispatch_uid="rqjobs")
        setting_changed.connect(_on_setting_changed, dispatch_uid="rqjobs")
        defer_with(after_commit)
        surround_jobs(_connections)
        checks.register(check_settings)
        checks.register(check_stores)
        autodiscover_modules("jobs")


def _load() -> None:
    try:
        use_framework_settings(overrides(), "rqjobs.integrations.django.setup")
    except InvalidSettings:
        use_settings(None)  # `manage.py check` reports the faults; here they would end in a traceback


def _on_post_migrate(*, using: str, **_: Any) -> None:
    """Makes our tables in the database of a test runner, and uses that database."""
    if is_test_database(using) and make_tables(using):
        _load()


def _on_setting_changed(*, setting: str, **_: Any) -> None:
    if setting in ("RQJOBS", "DATABASES", "TEMPLATES"):
        _load()


@contextlib.contextmanager
def _connections() -> Iterator[None]:
    """Closes stale database connections before and after a job, as Django does for a request."""
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()
