"""``rqjobs worker``."""

from __future__ import annotations

import click

from rqjobs.logs import set_up_logs
from rqjobs.queues import get_policy


@click.command()
@click.argument("queues", nargs=-1)
@click.option("--burst", is_flag=True, help="Do what is there, due retries included, and end: for cron.")
@click.option("--max-jobs", type=click.IntRange(1), help="End after so many jobs; a supervisor starts anew.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--engine", type=click.Choice(["rq"]), default="rq", show_default=True)
def worker(
    queues: tuple[str, ...],
    *,
    burst: bool,
    max_jobs: int | None,
    log_format: str,
    engine: str,  # noqa: ARG001  # one engine for now
) -> int:
    """Run jobs of QUEUES (all five by default) in priority order, until stopped.

    \b
    rqjobs worker                       everything
    rqjobs worker webhooks email        these two only
    rqjobs worker --burst               what is there now, then end: for cron and serverless
    """  # noqa: D301  # click's \b keeps the lines
    set_up_logs("json" if log_format == "json" else "text")
    names = [get_policy(name).name for name in queues] or None
    from rqjobs.worker.stock import run_stock_worker

    return run_stock_worker(names, burst=burst, max_jobs=max_jobs)
