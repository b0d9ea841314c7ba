"""``rqjobs enqueue``."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from rqjobs.cli.output import json_option, print_json, say
from rqjobs.cli.params import InvalidInput, read_json
from rqjobs.errors import InvalidJob

if TYPE_CHECKING:
    from rqjobs.policies import Priority

_FIELD = re.compile(r"(?<=')([A-Za-z_]\w*)(?=['.\[])")
"""The name of a field at the beginning of a fault: ``'data_type'``, ``'filters.a'``."""


@click.command()
@click.argument("kind")
@click.argument("job", metavar="(JSON | @FILE | -)")
@click.option("--priority", type=click.Choice(["high", "normal", "low"]), default="normal", show_default=True)
@click.option("--attempts", type=int, help="The most runs of the job.")
@click.option(
    "--backoff", metavar="exponential:2s|fixed:10s|schedule:5s,5m|standard", help="The wait before each retry."
)
@click.option("--delay", metavar="1h", help="The wait before the first run, with a unit (ms, s, m, h, d).")
@click.option(
    "--at",
    type=click.DateTime(["%Y-%m-%dT%H:%M%z", "%Y-%m-%dT%H:%M:%S%z"]),
    metavar="TIME",
    help="The time of the first run, with a zone: 2027-01-31T09:00+01:00.",
)
@click.option("--group", metavar="NAME", help="The group of the job, such as a customer's id: groups take turns.")
@click.option(
    "--debounce", metavar="5s", help="The wait before the run, restarted by each later call with the same id."
)
@click.option("--id", "job_id", metavar="ID", help="Your own id; refused while a job with this id has not ended.")
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
    at: datetime | None,
    group: str | None,
    debounce: str | None,
    job_id: str | None,
    wait: float | None,
    as_json: bool,
) -> None:
    """Enqueue one job.

    KIND: webhook, manychat-sync, email, qr-analytics, data-export, or the name of your own queue.
    """
    from rqjobs.broker.states import State, state_of
    from rqjobs.cli.progress import wait_with_progress
    from rqjobs.config.durations import parse_duration
    from rqjobs.enqueueing import enqueue as enqueue_job
    from rqjobs.policies import get_policy, policies

    kinds = [policy.kind for policy in policies()]
    if kind not in kinds:
        raise InvalidInput(f"unknown kind {kind!r}; the kinds are {', '.join(kinds)}")
    try:
        patience = None if wait is None else parse_duration(wait)
    except ValueError as error:
        raise InvalidInput(f"--wait: {error}") from None
    given = read_json(job)
    try:
        model = get_policy(kind).job_type.parse(given)
        queued = enqueue_job(
            model,
            priority=priority,
            attempts=attempts,
            backoff=backoff,
            delay=delay,
            at=at,
            group=group,
            debounce=debounce,
            job_id=job_id,
        )
    except InvalidJob as error:
        raise InvalidJob(error.kind, [_as_written(fault, given) for fault in error.faults]) from None
    document: dict[str, Any] = {
        "id": queued.id,
        "queue": queued.origin,
        "status": (status := queued.get_status(refresh=False).value),
        "state": state_of(status),
    }
    if not as_json:
        say(queued.id)
    if patience is not None:
        result = wait_with_progress(queued, patience)
        document |= {"status": "finished", "state": State.DONE, "result": result}
        if not as_json:
            say(json.dumps(result, indent=2, ensure_ascii=False))
    if as_json:
        print_json(document)


def _as_written(fault: str, given: Any) -> str:
    """Returns ``fault`` with field names spelled as in ``given``: ``dataType`` or ``data_type``."""
    from pydantic.alias_generators import to_camel, to_snake

    names = list(given) if isinstance(given, dict) else []
    snake = any("_" in name for name in names)

    def spell(match: re.Match[str]) -> str:
        name = match[1]
        forms = (name, to_camel(name), to_snake(name))
        return next((form for form in forms if form in names), to_snake(name) if snake else name)

    return _FIELD.sub(spell, fault, count=1)
