"""Flask: ``RQJobs(app)``, or ``init_app`` in an app factory."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import click
from flask import Blueprint, Flask, Response, abort, request
from flask.cli import ScriptInfo
from flask.typing import ResponseReturnValue

from rqjobs.config.settings import is_setting
from rqjobs.decorator import surround_jobs
from rqjobs.integrations.bridge import (
    Lazy,
    admitted,
    child_environment,
    dashboard_app,
    downloads_app,
    use_framework_settings,
)

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


class RQJobs:
    """The Flask extension: the app's settings, ``flask rqjobs ...``, and our pages behind the app's login.

        rqjobs = RQJobs(dashboard_access=lambda: current_user.is_admin, owner=lambda: current_user.get_id())

        def create_app():
            app = Flask(__name__)
            rqjobs.init_app(app)
            return app

    Values in ``app.config`` with the name of one of our settings (``REDIS_URL``, ``WEBHOOK_SIGNING_SECRET`` ...)
    override the environment. The app's own jobs run in the app's context.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        dashboard: str = "/rqjobs",
        dashboard_access: Callable[[], bool] | None = None,
        downloads: str = "/exports",
        owner: Callable[[], str | None] | None = None,
    ) -> None:
        """Configures the extension, and ``app`` if one is given.

        Args:
            app: the Flask app; in a factory call :meth:`init_app` instead.
            dashboard: the path of the dashboard.
            dashboard_access: whether the user of the current request may see and change everything. Without it the app
                has no dashboard (``rqjobs dashboard`` serves one with a password).
            downloads: the path of export files; EXPORT_LINK_URL must have the same path.
            owner: the id of the user of the current request, as in ``DataExportJob.user_id``. Without it the app has no
                downloads.
        """
        self.blueprint = Blueprint("rqjobs_pages", __name__)
        """Our pages. With Flask-WTF call ``csrf.exempt(extension.blueprint)``: they have their own CSRF token."""
        if dashboard_access is not None:
            access = dashboard_access
            self._mount("dashboard", dashboard, dashboard_app, lambda: "admin" if access() else None, forbid=True)
        if owner is not None:
            self._mount("downloads", downloads, downloads_app, owner, forbid=False)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Adds rqjobs to ``app``.

        Raises:
            InvalidSettings: the app's config is invalid; the message names every fault with its variable.
        """
        overrides = {name: value for name, value in app.config.items() if is_setting(name)}
        found_again = app.import_name in sys.modules and app.import_name != "__main__"
        use_framework_settings(overrides, app.import_name if found_again else "")
        app.extensions["rqjobs"] = self
        app.register_blueprint(self.blueprint)
        app.cli.add_command(_pass_through)
        surround_jobs(app.app_context)

    def _mount(
        self, name: str, prefix: str, make: Callable[[], Flask], user: Callable[[], str | None], *, forbid: bool
    ) -> None:
        inner = Lazy(make)

        def view(path: str = "") -> ResponseReturnValue:
            who = user()
            if forbid and who is None:
                abort(403)
            root = request.environ.get("SCRIPT_NAME", "") + prefix
            return Response.from_app(inner, admitted(request.environ, who, root, path))

        self.blueprint.add_url_rule(f"{prefix}/", name, view, methods=_METHODS)
        self.blueprint.add_url_rule(f"{prefix}/<path:path>", name, view, methods=_METHODS)


@click.command(
    "rqjobs",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def _pass_through(context: click.Context, args: tuple[str, ...]) -> None:
    """Run rqjobs with the app's settings: flask rqjobs worker."""
    from rqjobs.cli import main

    environment = child_environment()
    info = context.find_object(ScriptInfo)
    if info is not None and info.create_app is None:  # the app was found by its name, as child processes can
        environment["RQJOBS_IMPORT"] = f"rqjobs.integrations.flask_setup {environment['RQJOBS_IMPORT']}"
        if info.app_import_path:
            environment["FLASK_APP"] = info.app_import_path
    option = f"--app {info.app_import_path} " if info and info.app_import_path and "FLASK_APP" not in os.environ else ""
    os.environ.update(environment)
    main(list(args), program=f"flask {option}rqjobs")
