"""``rqjobs enqueue``."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import click

from rqjobs.cli.output import json_option, print_json
from rqjobs.cli.progress import wait_with_progress
from rqjobs.enqueueing import enqueue as enqueue_job
from rqjobs.errors import RQJobsError
from rqjobs.queues import Priority, get_policy, policies


class InvalidInput(RQJobsError):
    """What was typed, or read from a file, cannot be used."""


def read_json(source: str) -> Any:
    """The JSON that SOURCE says: itself, ``@FILE``, or ``-`` for stdin.

    Raises:
        InvalidInput: it cannot be read, or is not JSON.
    """
    try:
        if source == "-":
            text = sys.stdin.read()
        elif source.startswith("@"):
            text = Path(source[1:]).read_text(encoding="utf-8")
        else:
            text = source
        return json.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{source} cannot be read: {error}") from None
    except ValueError as error:
        raise InvalidInput(f"not JSON: {error}") from None


@click.command()
@click.argument("kind")
@click.argument("job", metavar="(JSON | @FILE | -)")
@click.option("--priority", type=click.Choice(get_args(Priority)), default="normal", show_default=True)
@click.option("--attempts", type=int, help="How often it is run at most.")
@click.option("--backoff", metavar="exponential:2s|fixed:10s", help="The waits between the runs.")
@click.option("--delay", metavar="1h", help="Wait so long before the first run.")
@click.option("--id", "job_id", metavar="ID", help="An id of your own; the same id is not enqueued twice at once.")
@click.option("--wait", type=click.FloatRange(0), metavar="SECONDS", help="Wait for the result and print it.")
@json_option
def enqueue(
    kind: str,
    job: str,
    *,
    priority: Priority,
    attempts: int | None,
    backoff: str | None,
    delay: str | None,
    job_id: str | None,
    wait: float | None,
    as_json: bool,
) -> None:
    """Enqueue one job.

    KIND: webhook, manychat-sync, email, qr-analytics, data-export, or the name of a queue of yours.
    """
    kinds = [policy.kind for policy in policies()]
    if kind not in kinds:
        raise InvalidInput(f"unknown kind {kind!r}; the kinds are {', '.join(kinds)}")
    model = get_policy(kind).job_type.parse(read_json(job))
    queued = enqueue_job(
        model, priority=priority, attempts=attempts, backoff=backoff, delay=delay, job_id=job_id
    )  # fmt: skip
    document: dict[str, Any] = {
        "id": queued.id,
        "queue": queued.origin,
        "status": str(queued.get_status(refresh=False).value),
    }
    if not as_json:
        click.echo(queued.id)
    if wait is not None:
        result = wait_with_progress(queued, timedelta(seconds=wait))
        document |= {"status": "finished", "result": result}
        if not as_json:
            click.echo(json.dumps(result, indent=2, ensure_ascii=False))
    if as_json:
        print_json(document)
