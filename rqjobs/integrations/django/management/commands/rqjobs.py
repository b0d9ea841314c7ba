"""``manage.py rqjobs ...``: the command line with the project's settings."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand

from rqjobs.integrations.bridge import child_environment


class Command(BaseCommand):
    """The management command; it passes all arguments to rqjobs."""

    help = "rqjobs with this project's settings: manage.py rqjobs worker"
    requires_system_checks: list[str] = []  # noqa: RUF012  # Django's declaration; `check` is a command of its own

    def run_from_argv(self, argv: list[str]) -> None:
        """Passes ``argv`` on unparsed, because its options are those of rqjobs, not of Django."""
        from rqjobs.cli import main

        os.environ.update(child_environment())
        # Child processes need the import path by which manage.py found the project.
        paths = [sys.path[0], *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        called = Path(argv[0]).name
        program = {"__main__.py": "python -m django", "django-admin": called}.get(called, f"python {called}")
        main(argv[2:], program=f"{program} rqjobs")

    def handle(self, *args: str, **_options: Any) -> None:
        """Runs the command for ``call_command("rqjobs", "health")``."""
        self.run_from_argv([sys.argv[0], "rqjobs", *args])
