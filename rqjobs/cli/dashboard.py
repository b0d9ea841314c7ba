"""``rqjobs dashboard``."""

from __future__ import annotations

import secrets
import signal
from typing import TYPE_CHECKING

import click

from rqjobs.cli.output import say
from rqjobs.config.logs import set_up_logs

if TYPE_CHECKING:
    from rqjobs.monitoring.http_server import LimitedServer

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_THREADS = 16
"""The most pages made at the same time. While Redis does not answer, each waits some seconds for it."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=9181, show_default=True)
def dashboard(*, host: str, port: int) -> None:
    """Serve the dashboard, rq-dashboard and the metrics.

    The login is DASHBOARD_USERNAME (admin) and DASHBOARD_PASSWORD; without one, a password is generated and printed.
    """
    from rqjobs.config.settings import get_settings

    server, password = open_dashboard(host, port)
    say(f"dashboard: http://{_shown(host)}:{server.server_port}/")
    if password:
        say(f"user name {get_settings().dashboard_username}, password {password} (set DASHBOARD_PASSWORD to keep one)")
    if host not in _LOOPBACK:
        say("reachable from other machines: put a proxy with https before it", err=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: server.ask_to_stop())
    server.serve_forever()


def open_dashboard(host: str, port: int) -> tuple[LimitedServer, str | None]:
    """Returns a server that is ready to serve, and the generated password, if none was set.

    Raises:
        RQJobsError: the port is in use.
        RedisUnavailable: Redis does not answer.
    """
    from rqjobs.broker.connection import get_connection
    from rqjobs.config.settings import get_settings
    from rqjobs.monitoring import alerts
    from rqjobs.monitoring.http_server import LimitedServer
    from rqjobs.web import create_app

    set_up_logs()
    get_connection()
    alerts.watch()
    password = None if get_settings().dashboard_password else secrets.token_urlsafe(12)
    app = create_app(password)
    return LimitedServer(app, host, port, threads=_THREADS), password


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
