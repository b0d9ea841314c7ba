"""``rqjobs health``, ``pause`` and ``resume``."""

from __future__ import annotations

from dataclasses import asdict

import click

from rqjobs.cli.output import adapted, bold, json_option, print_json, print_table, say, typed
from rqjobs.cli.params import QUEUE


@click.command()
@json_option
def health(*, as_json: bool) -> int:
    """Show the jobs of every queue by state, and its health.

    Dead: the kept dead letters. Done: the total. In --json running is "active", dead is "failed" and done is
    "completed". Exit 0: healthy, 1: not, 2: Redis cannot be reached.
    """
    from rqjobs.config.settings import get_settings
    from rqjobs.monitoring.queue_health import fullness, queue_health, state_table

    found, full, kept = queue_health(), fullness(), get_settings().rqjobs_keep_failed
    healthy = full is None and all(queue.healthy for queue in found)
    if as_json:
        print_json(
            {
                "healthy": healthy,
                "redis": full,
                "queues": [{**asdict(queue), "healthy": queue.healthy} for queue in found],
            }
        )
    else:
        head, rows = state_table(found)
        rows = [(*row, queue.workers, queue.oldest) for row, queue in zip(rows, found, strict=True)]
        print_table((*head, "workers", "oldest"), rows, right=(*head[1:], "workers", "oldest"))
        for queue in found:
            for reason in queue.reasons or (("paused",) if queue.paused else ()):
                say(f"{bold(queue.name)}: {adapted(reason)}")
        for queue in found:
            if queue.dropped:
                say(
                    f"{bold(queue.name)}: {queue.dropped:,} dead letters were deleted so far, "
                    f"RQJOBS_KEEP_FAILED keeps {kept:,} of each priority"
                )
        if full:
            say(f"{bold('Redis')}: {full}")
        if healthy:
            say("healthy")
    return 0 if healthy else 1


@click.command()
@click.argument("queue", type=QUEUE)
@json_option
def pause(queue: str, *, as_json: bool) -> None:
    """Pause QUEUE: workers claim none of its jobs until it is resumed. Running jobs continue, new ones wait."""
    from rqjobs.monitoring.queue_health import pause as pause_queue

    pause_queue(queue)
    if as_json:
        print_json({"queue": queue, "paused": True})
        return
    say(f"{queue} is paused; resume it with: {typed(f'resume {queue}')}")


@click.command()
@click.argument("queue", type=QUEUE)
@json_option
def resume(queue: str, *, as_json: bool) -> None:
    """End the pause of QUEUE."""
    from rqjobs.monitoring.queue_health import resume as resume_queue

    resume_queue(queue)
    if as_json:
        print_json({"queue": queue, "paused": False})
        return
    say(f"{queue} is resumed")
