"""``rqjobs worker``."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import click

from rqjobs.cli.params import QUEUE
from rqjobs.config.logs import event, set_up_logs

LEAVE = 5.0
"""Seconds that a stopped worker waits for threads that its jobs have started."""


@click.command()
@click.argument("queues", nargs=-1, type=QUEUE)
@click.option("--processes", type=click.IntRange(1), default=1, show_default=True, help="Worker processes.")
@click.option("--threads", type=click.IntRange(1), help="Jobs at once in total; by default each queue's concurrency.")
@click.option("--burst", is_flag=True, help="End when no job waits and no retry is due: for cron.")
@click.option(
    "--grace", type=click.FloatRange(0), default=25.0, show_default=True, help="Seconds for running jobs at SIGTERM."
)
@click.option("--max-jobs", type=click.IntRange(1), help="End after this many jobs, to be restarted by a supervisor.")
@click.option("--max-rss", type=click.IntRange(1), metavar="MIB", help="End above this many MiB of memory.")
@click.option(
    "--engine",
    type=click.Choice(["threads", "rq"]),
    default="threads",
    show_default=True,
    help="rq: RQ's own forking worker, which is slow.",
)
@click.option(
    "--exception-handler",
    "exception_handlers",
    multiple=True,
    metavar="FUNCTION",
    help="Called with (job, type, value, traceback) when a run raises; registered with rqjobs.broker.rq_schema.allow.",
)
@click.option("--health-port", type=click.IntRange(0, 65535), help="Serve /metrics, /health, /ready on this port.")
@click.option(
    "--health-host",
    envvar="RQJOBS_HEALTH_HOST",
    default="127.0.0.1",
    show_default=True,
    help="0.0.0.0 makes them reachable from outside of a container.",
)
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def worker(
    queues: tuple[str, ...],
    *,
    processes: int,
    threads: int | None,
    burst: bool,
    grace: float,
    max_jobs: int | None,
    max_rss: int | None,
    engine: str,
    exception_handlers: tuple[str, ...],
    health_port: int | None,
    health_host: str,
    log_format: str,
) -> int:
    """Run jobs of QUEUES, all by default, in priority order."""
    from rqjobs.config.settings import close_data_folder
    from rqjobs.policies import get_policy

    close_data_folder()
    set_up_logs("json" if log_format == "json" else "text")
    _tell_people()
    if health_port is not None:
        from rqjobs.monitoring.health_server import serve_probes

        serve_probes(health_port, health_host)
    names = [get_policy(name).name for name in queues] or None
    handlers = _handlers(exception_handlers)
    if processes > 1:
        from rqjobs.worker.supervisor import Supervisor

        words = [*queues, "--grace", str(grace), "--engine", engine, "--log-format", log_format]
        words += ["--burst"] if burst else []
        for option, value in (("--threads", threads), ("--max-jobs", max_jobs), ("--max-rss", max_rss)):
            words += [option, str(value)] if value is not None else []
        words += [word for name in exception_handlers for word in ("--exception-handler", name)]
        watched = engine == "threads"
        return Supervisor(words, processes, grace=grace, burst=burst, watched=watched).run()
    if engine == "rq":
        from rqjobs.worker.rq_worker import run_stock_worker

        return run_stock_worker(names, burst=burst, max_jobs=max_jobs, exception_handlers=handlers)
    from rqjobs.outbox.thread import relaying
    from rqjobs.worker.run import run_worker

    with relaying():
        code = run_worker(
            names,
            burst=burst,
            threads=threads,
            grace=grace,
            max_jobs=max_jobs,
            max_rss=max_rss << 20 if max_rss is not None else None,
            exception_handlers=handlers,
            watch=True,
        )
    _leave_within(LEAVE, code)
    return code


def _leave_within(seconds: float, code: int) -> None:
    """Ends this process after the given seconds, because a thread that a job has left would keep it alive for ever.

    Python waits for other threads before it exits, but not for the daemon thread of this function, which ends with the
    process.
    """

    def end() -> None:
        time.sleep(seconds)
        names = sorted(thread.name for thread in threading.enumerate() if not thread.daemon)
        event(logging.WARNING, "threads that jobs left behind do not end: the process does", threads=" ".join(names))
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    threading.Thread(target=end, name="rqjobs-end", daemon=True).start()


def _handlers(names: Sequence[str]) -> list[Callable[..., Any]]:
    """Returns the registered functions with these names."""
    from rqjobs.broker.rq_schema import registered
    from rqjobs.policies import import_registrations

    import_registrations()
    found = {name: registered(name) for name in names}
    for name, function in found.items():
        if function is None:
            raise click.UsageError(
                f"--exception-handler {name}: no such function is registered: put @rqjobs.layout.allow before it, and "
                "name its module in RQJOBS_IMPORT"
            )
    return [function for function in found.values() if function is not None]


def _tell_people() -> None:
    """Sends an alert, if alerts are configured, because the worker whose delivery failed disables the endpoint."""
    from rqjobs.monitoring import alerts

    if alerts.watch() is None:
        return
    from rqjobs.processors.webhook import on_endpoint_disabled

    @on_endpoint_disabled
    def _disabled(name: str, reason: str) -> None:
        text = f"webhook endpoint {name} is disabled: {reason}. Once it is fixed: rqjobs webhooks enable {name}"
        alerts.raise_alert(alerts.Alert(kind="endpoint-disabled", subject=name, text=text))
