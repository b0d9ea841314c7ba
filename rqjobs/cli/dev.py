"""``rqjobs dev``."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from types import FrameType

import click

from rqjobs.cli.dashboard import open_dashboard
from rqjobs.cli.output import say


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=9181, show_default=True, help="The dashboard's port.")
@click.option("--no-worker", is_flag=True, help="Only Redis and the dashboard; run the worker in a debugger.")
def dev(*, port: int, no_worker: bool) -> int:
    """Run Redis, a worker and the dashboard, in one terminal.

    Redis is the embedded one unless REDIS_URL names another. Ctrl-C ends the worker and the dashboard; the embedded
    Redis and its jobs stay.
    """
    from rqjobs.broker.connection import redact
    from rqjobs.config.settings import get_settings

    server, password = open_dashboard("127.0.0.1", port)
    settings = get_settings()
    say(f"redis      {redact(settings.redis_url.get_secret_value())}")
    say(f"dashboard  http://127.0.0.1:{server.server_port}/")
    say(f"           user name {settings.dashboard_username}, password {password or 'as set'}")
    threading.Thread(target=server.serve_forever, name="dashboard", daemon=True).start()
    stopped = threading.Event()
    previous = {number: signal.signal(number, _stop(stopped)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if no_worker:
            stopped.wait()
            return 0
        # In its own session, so that Ctrl-C reaches it only once, from this process.
        worker = subprocess.Popen([sys.executable, "-m", "rqjobs", "worker"], start_new_session=True)
        try:
            while worker.poll() is None and not stopped.wait(0.2):
                pass
        finally:
            worker.terminate()
            code = worker.wait()
        return 0 if stopped.is_set() else code or 1
    finally:
        server.server_close()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _stop(stopped: threading.Event) -> Callable[[int, FrameType | None], None]:
    def handle(_number: int, _frame: FrameType | None) -> None:
        stopped.set()

    return handle
