"""``rqjobs jobs``: single jobs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from rqjobs.cli.output import ago, bold, cell, json_option, print_json, print_table, say
from rqjobs.security.masking import mask

if TYPE_CHECKING:
    from rqjobs.broker.groups import Membership
    from rqjobs.broker.rq_schema import RegisteredJob


@click.group()
def jobs() -> None:
    """Show, run now, stop and delete single jobs."""


@jobs.command()
@click.argument("job_id", metavar="ID")
@json_option
def show(job_id: str, *, as_json: bool) -> None:
    """Show one job: all its attempts, its payload, its result."""
    from rqjobs.broker.attempts import read_history
    from rqjobs.broker.connection import get_connection
    from rqjobs.broker.groups import membership
    from rqjobs.broker.job_records import progress_of
    from rqjobs.broker.rq_schema import ENDED, attempt_number, attempts_of, attempts_seen, fetch_job, key, payload_of
    from rqjobs.broker.states import State, state_of

    client = get_connection()
    job = fetch_job(job_id, client)
    history = read_history(job)
    known = payload_of(job)
    status = job.get_status(refresh=False).value
    state = state_of(status)
    due = client.zscore(key("scheduled", job.origin), job_id) if state is State.DELAYED else None
    group = membership(client, job_id, job.origin)
    document: dict[str, Any] = {
        "id": job.id,
        "queue": job.origin,
        "state": state,
        "status": status,
        "what": job.description,
        "created_at": job.created_at,
        "enqueued_at": job.enqueued_at,
        "due_at": due,
        "batch": job.batch or None,
        "group": group.group if group else None,
        "absorbed": job.absorbed,
        "attempt": len(history) if status in ENDED else min(attempt_number(job), attempts_of(job)),
        "attempts": attempts_of(job),
        "payload": mask(known[1]) if known else None,
        "progress": progress_of(job.meta),
        "result": history[-1].result if history and state is State.DONE else None,
        "history": [
            {
                "outcome": record.outcome,
                "started_at": record.started_at,
                "seconds": record.duration,
                "error": record.error,
                "worker": record.worker,
                "traceback": record.traceback,
            }
            for record in history
        ],
    }
    if as_json:
        print_json(document)
        return
    say(f"{bold(cell(job.description))}  {job.id}")
    say(f"queue {cell(job.origin)}, {state}, attempts {attempts_seen(job, len(history))}, "
               f"created {ago(job.created_at)}")  # fmt: skip
    _say_notes(job, due, group, document["progress"])
    if history:
        say("")
        print_table(
            ("#", "outcome", "started", "took", "error"),
            (
                (number, record.outcome, record.started_at, record.duration, record.error)
                for number, record in enumerate(history, 1)
            ),
            right=("#", "took"),
        )
    for title in ("payload", "result"):
        if document[title] is not None:
            say(f"\n{bold(title)}\n{json.dumps(document[title], indent=2, ensure_ascii=False)}")
    if history and history[-1].traceback:
        say(f"\n{bold('traceback of the last run')}\n{history[-1].traceback.rstrip()}")


def _say_notes(
    job: RegisteredJob, due: float | None, group: Membership | None, progress: dict[str, Any] | None
) -> None:
    """Prints a line for each thing that only some jobs have."""
    from rqjobs.broker.job_records import describe_progress

    if job.batch:
        say(f"batch {cell(job.batch)}")
    if due:
        say(f"runs {ago(datetime.fromtimestamp(due, UTC))}")
    if group:
        say(cell(group.text))
    if job.absorbed:
        say(f"{job.absorbed} later calls absorbed (debounce)")
    if progress:
        say("progress " + describe_progress(progress))


@jobs.command("run-now")
@click.argument("job_id", metavar="ID")
def run_now(job_id: str) -> int:
    """Make a delayed job due now.

    A job that is in no list, as reported by rqjobs doctor, goes back into its queue. Rate limits and open circuit
    breakers still apply. Exit 1 if the job is neither.
    """
    from rqjobs.broker import job_actions

    return _said(job_actions.run_now(job_id), f"{job_id} is due now", f"{job_id} is neither delayed nor lost")


@jobs.command()
@click.argument("job_id", metavar="ID")
def stop(job_id: str) -> int:
    """Stop a running job; it becomes a dead letter.

    Exit 1 if the job is not running.
    """
    from rqjobs.broker import job_actions

    return _said(job_actions.stop(job_id), f"the worker of {job_id} was asked to stop it", f"{job_id} does not run")


@jobs.command()
@click.argument("job_id", metavar="ID")
def delete(job_id: str) -> int:
    """Delete a waiting or delayed job.

    For dead jobs use: rqjobs failed purge. Exit 1 if the job is neither waiting nor delayed.
    """
    from rqjobs.broker import job_actions

    return _said(job_actions.delete(job_id), f"deleted {job_id}", f"{job_id} is neither waiting nor delayed (any more)")


def _said(done: bool, yes: str, no: str) -> int:
    say(yes if done else no)
    return 0 if done else 1
