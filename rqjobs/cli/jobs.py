"""``rqjobs jobs show``."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.markup import escape

from rqjobs.cli.output import ago, cell, console, json_option, print_json, print_table
from rqjobs.cli.progress import describe
from rqjobs.connection import get_connection
from rqjobs.history import read_history
from rqjobs.layout import attempt_number, attempts_of, fetch_job, key, payload_of
from rqjobs.masking import mask


@click.group()
def jobs() -> None:
    """Look at single jobs."""


@jobs.command()
@click.argument("job_id", metavar="ID")
@json_option
def show(job_id: str, *, as_json: bool) -> None:
    """Show job ID: its status, every attempt with time, duration and error, its result."""
    client = get_connection()
    job = fetch_job(job_id, client)
    history = read_history(job)
    known = payload_of(job)
    status = job.get_status(refresh=False).value
    due = client.zscore(key("scheduled", job.origin), job_id) if status == "scheduled" else None
    document: dict[str, Any] = {
        "id": job.id,
        "queue": job.origin,
        "status": status,
        "what": job.description,
        "created_at": job.created_at,
        "enqueued_at": job.enqueued_at,
        "due_at": due,
        "attempt": len(history) if status == "failed" else min(attempt_number(job), attempts_of(job)),
        "attempts": attempts_of(job),
        "payload": mask(known[1]) if known else None,
        "progress": job.meta.get("progress"),
        "result": history[-1].result if history and status == "finished" else None,
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
    out = console()
    out.print(f"[bold]{escape(str(job.description))}[/]  {job.id}")
    # A job that died at once has attempts left; one that was requeued has had more than one life.
    attempt = "" if status == "failed" else f"attempt {document['attempt']} of {document['attempts']}, "
    out.print(f"queue {job.origin}, {status}, {attempt}created {ago(job.created_at)}")
    if document["progress"]:
        out.print("progress " + escape(describe(document["progress"])))
    if history:
        print_table(
            ("#", "outcome", "started", "took", "error"),
            (
                (number, record.outcome, record.started_at, record.duration, record.error)
                for number, record in enumerate(history, 1)
            ),
            right=("#", "took"),
        )
    if document["result"] is not None:
        out.print("result " + escape(cell(json.dumps(document["result"], ensure_ascii=False))))
