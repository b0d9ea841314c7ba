"""``manage.py rqjobs ...``: the command line with the project's settings."""

from __future__ import annotations

import os
import sys
from typing import Any

from django.core.management.base import BaseCommand

from rqjobs.integrations.bridge import export_settings
from rqjobs.integrations.django.conf import overrides

_SETUP = "rqjobs.integrations.django.setup"


class Command(BaseCommand):
    """Everything after the name goes to rqjobs as it is."""

    help = "rqjobs with this project's settings: manage.py rqjobs worker"
    requires_system_checks: list[str] = []  # noqa: RUF012  # Django's declaration; `check` is a command of its own

    def run_from_argv(self, argv: list[str]) -> None:
        """Passes ``argv`` through unparsed: its options are rqjobs' and not Django's."""
        from rqjobs.cli import main

        export_settings(overrides())
        # The processes that a worker starts are told to set Django up as well.
        modules = os.environ.get("RQJOBS_IMPORT", "").split()
        if _SETUP not in modules:
            os.environ["RQJOBS_IMPORT"] = " ".join([_SETUP, *modules])
        main(argv[2:])

    def handle(self, *args: str, **_options: Any) -> None:
        """For ``call_command("rqjobs", "health")``."""
        self.run_from_argv([sys.argv[0], "rqjobs", *args])
