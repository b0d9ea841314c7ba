"""``rqjobs dashboard``."""

from __future__ import annotations

import logging
import secrets
import socket
from typing import TYPE_CHECKING

import click

from rqjobs.cli.output import say
from rqjobs.config.logs import set_up_logs
from rqjobs.errors import RQJobsError

if TYPE_CHECKING:
    from werkzeug.serving import BaseWSGIServer

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=9181, show_default=True)
def dashboard(*, host: str, port: int) -> None:
    """Serve the dashboard, rq-dashboard and the metrics.

    Its login is DASHBOARD_USERNAME (admin) and DASHBOARD_PASSWORD; without one, a password is made and printed.
    """
    from rqjobs.config.settings import get_settings

    server, password = open_dashboard(host, port)
    say(f"dashboard: http://{_shown(host)}:{server.server_port}/")
    if password:
        say(f"user name {get_settings().dashboard_username}, password {password} (set DASHBOARD_PASSWORD to keep one)")
    if host not in _LOOPBACK:
        say("reachable from other machines: put a proxy with https before it", err=True)
    try:
        server.serve_forever()
    finally:
        server.server_close()


def open_dashboard(host: str, port: int) -> tuple[BaseWSGIServer, str | None]:
    """A server that is ready to serve, and the password that was made for it, if none was set.

    Raises:
        RQJobsError: the port is taken.
        RedisUnavailable: Redis does not answer.
    """
    from werkzeug.serving import make_server

    from rqjobs.broker.connection import get_connection
    from rqjobs.config.settings import get_settings
    from rqjobs.monitoring import alerts
    from rqjobs.web import create_app

    set_up_logs()
    get_connection()
    alerts.watch()
    password = None if get_settings().dashboard_password else secrets.token_urlsafe(12)
    app = create_app(password)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # werkzeug would print, and exit with 1
        try:
            probe.bind((host, port))
        except OSError as error:
            raise RQJobsError(
                f"port {port} of {host} cannot be used: {error.strerror}; choose another with --port"
            ) from error
    return make_server(host, port, app, threaded=True), password


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
