"""The page of one job: all its attempts, and the actions on it."""

from __future__ import annotations

import json
import math
from typing import Any

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy.exc import SQLAlchemyError

from rqjobs.broker import job_actions
from rqjobs.broker.attempts import read_history
from rqjobs.broker.connection import get_connection
from rqjobs.broker.groups import membership
from rqjobs.broker.job_records import describe_progress, progress_of
from rqjobs.broker.rq_schema import RegisteredJob, attempts_seen, fetch_job, key, payload_of
from rqjobs.broker.states import state_of
from rqjobs.database import get_engine
from rqjobs.database.webhook_deliveries import Filter
from rqjobs.database.webhook_deliveries import find as find_deliveries
from rqjobs.dead_letters import letters as dead_letters
from rqjobs.errors import InvalidJob, JobNotFound, RQJobsError, UnreadableJob
from rqjobs.security.masking import mask
from rqjobs.web.show import is_overdue

blueprint = Blueprint("jobs", __name__, url_prefix="/jobs")


@blueprint.get("/")
def find() -> ResponseReturnValue:
    """The search of every page: finds a job by its id, or dead letters by their text."""
    words = request.args.get("find", "").strip()
    if not words:
        return redirect(url_for("overview.index"))
    try:
        fetch_job(words, get_connection())
    except (JobNotFound, UnreadableJob):
        return redirect(_delivery_page(words) or url_for("dead.index", find=words))
    return redirect(url_for("jobs.show", job_id=words))


def _delivery_page(job_id: str) -> str | None:
    """Returns the URL of the delivery's page, if it is in the log, which keeps deliveries longer than jobs are kept."""
    try:
        known = find_deliveries(get_engine(), Filter(job_id=job_id), 1)
    except (SQLAlchemyError, RQJobsError):  # the database does not answer, so the job is reported as unknown
        return None
    return url_for("webhooks.delivery", job_id=job_id) if known else None


@blueprint.get("/<job_id>")
def show(job_id: str) -> ResponseReturnValue:
    """Shows one job: its payload, all its attempts, its result, and the actions on it."""
    try:
        return render_template("job.html", **_job(job_id))
    except JobNotFound:
        if page := _delivery_page(job_id):
            return redirect(page)
        raise


@blueprint.get("/<job_id>/live")
def live(job_id: str) -> ResponseReturnValue:
    """Returns the part of the page that changes."""
    return render_template("_job.html", **_job(job_id))


def _job(job_id: str) -> dict[str, Any]:
    client = get_connection()
    job = fetch_job(job_id, client)
    known = payload_of(job)
    status = job.get_status(refresh=False).value
    due = client.zscore(key("scheduled", job.origin), job.id) if status == "scheduled" else None
    history = read_history(job)
    return {
        "job": job,
        "label": job.description or job.func_name or job.id,
        "status": status,
        "state": state_of(status) or status,
        "dead": client.zscore(key("failed", job.origin), job.id) is not None,
        "due": due,
        "group": membership(client, job.id, job.origin),
        "overdue": due is not None and is_overdue(due),
        "attempts": attempts_seen(job, len(history)),
        "payload": mask(known[1]) if known else None,
        "call": None if known else _call(job),
        "meta": job.meta,
        "progress": _progress(job.meta),
        "result": history[-1].result if history and status == "finished" else None,
        "history": list(enumerate(history, 1))[::-1],
    }


def _progress(meta: Any) -> dict[str, Any] | None:
    """Returns a job's reported progress as text, with a bar for a report with ``percent``."""
    report = progress_of(meta)
    if report is None:
        return None
    percent = report.get("percent")
    bar = min(percent, 100) if isinstance(percent, int | float) and 0 <= percent < math.inf else None
    return {"text": describe_progress(report), "percent": bar}


def _call(job: RegisteredJob) -> str:
    """Returns the call of a plain RQ job as text; nothing in it is imported or run."""
    return job.refusal or f"{job.func_name} {json.dumps(mask([job.args, job.kwargs]), default=str)}"


@blueprint.route("/<job_id>/edit", methods=["GET", "POST"])
def edit(job_id: str) -> ResponseReturnValue:
    """Edits the payload of a dead job, which is checked before the job runs again."""
    letter = dead_letters.dead_letter(job_id)
    if letter.payload is None:
        raise JobNotFound(job_id)
    text = request.form.get("payload") or json.dumps(letter.payload, indent=2, ensure_ascii=False)
    fault = None
    if request.method == "POST":
        try:
            dead_letters.replace_payload(job_id, json.loads(text))
            dead_letters.requeue([job_id])
        except InvalidJob as error:
            fault = str(error)
        except (ValueError, RecursionError) as error:  # of json: not JSON, nested too deep, or a number is too long
            fault = f"not JSON: {error}"
        else:
            flash("The payload was replaced, and the job waits in its queue again.")
            return redirect(url_for("jobs.show", job_id=job_id))
    return render_template("edit.html", letter=letter, text=text, fault=fault), 422 if fault else 200


@blueprint.post("/<job_id>/requeue")
def requeue(job_id: str) -> ResponseReturnValue:
    """Runs a dead job again, with all its attempts."""
    return _tell(job_id, bool(dead_letters.requeue([job_id])), "The job waits in its queue again.", "dead")


@blueprint.post("/<job_id>/run-now")
def run_now(job_id: str) -> ResponseReturnValue:
    """Makes a delayed job due now."""
    return _tell(job_id, job_actions.run_now(job_id), "The job is due now.", "delayed")


@blueprint.post("/<job_id>/stop")
def stop(job_id: str) -> ResponseReturnValue:
    """Sends the worker of a running job the command to stop it."""
    return _tell(job_id, job_actions.stop(job_id), "Its worker was asked to stop it.", "running")


def _tell(job_id: str, done: bool, said: str, state: str) -> ResponseReturnValue:
    flash(said if done else f"Nothing was done: the job is not {state} (any more).")
    return redirect(url_for("jobs.show", job_id=job_id))


@blueprint.post("/<job_id>/delete")
def delete(job_id: str) -> ResponseReturnValue:
    """Deletes a job that is dead, waiting or delayed."""
    origin = fetch_job(job_id, get_connection()).origin
    if dead_letters.purge([job_id]):
        flash(f"Job {job_id} was deleted.")
        return redirect(url_for("dead.index"))
    if job_actions.delete(job_id):
        flash(f"Job {job_id} was deleted.")
        return redirect(url_for("queues.show", name=origin))
    return _tell(job_id, False, "", "dead, waiting or delayed")
