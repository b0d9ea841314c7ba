"""One job with every attempt, and the jobs of a queue."""

from __future__ import annotations

import json
from typing import Any, cast

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from rq.utils import as_text

from rqjobs import dead_letters
from rqjobs.connection import get_connection
from rqjobs.errors import InvalidJob, JobNotFound
from rqjobs.history import read_history, runs_of
from rqjobs.layout import (
    SERIALIZER,
    RegisteredJob,
    attempt_number,
    attempts_of,
    fetch_job,
    key,
    payload_of,
)
from rqjobs.masking import mask
from rqjobs.queues import get_policy, lanes

blueprint = Blueprint("jobs", __name__)

_PAGE = 50
_REGISTRIES = {"running": "wip", "delayed": "scheduled", "dead": "failed", "done": "finished"}
_STATES = ("waiting", *_REGISTRIES)


@blueprint.get("/jobs/")
def find() -> ResponseReturnValue:
    """The search field of every page: a job by its id."""
    job_id = request.args.get("id", "").strip()
    if not job_id:
        return redirect(url_for("overview.index"))
    return redirect(url_for("jobs.show", job_id=job_id))


@blueprint.get("/jobs/<job_id>")
def show(job_id: str) -> ResponseReturnValue:
    """One job: what it is, every attempt, its result, and what can be done about it."""
    return render_template("job.html", **_job(job_id))


@blueprint.get("/jobs/<job_id>/live")
def live(job_id: str) -> ResponseReturnValue:
    """The part of the page that changes."""
    return render_template("_job.html", **_job(job_id))


def _job(job_id: str) -> dict[str, Any]:
    client = get_connection()
    job = fetch_job(job_id, client)
    known = payload_of(job)
    status = job.get_status(refresh=False).value
    history = read_history(job)
    return {
        "job": job,
        "label": job.description or job.func_name or job.id,
        "status": status,
        "dead": client.zscore(key("failed", job.origin), job.id) is not None,
        "due": client.zscore(key("scheduled", job.origin), job.id) if status == "scheduled" else None,
        "attempt": len(history) if status == "failed" else min(attempt_number(job), attempts_of(job)),
        "attempts": attempts_of(job),
        "payload": mask(known[1]) if known else None,
        "call": None if known else _call(job),
        "meta": job.meta,
        "result": history[-1].result if history and status == "finished" else None,
        "history": list(enumerate(history, 1))[::-1],
    }


def _call(job: RegisteredJob) -> str:
    """A plain RQ job's call, as text; nothing in it is imported or run."""
    return job.refusal or f"{job.func_name} {json.dumps(mask([job.args, job.kwargs]), default=str)}"


@blueprint.route("/jobs/<job_id>/edit", methods=["GET", "POST"])
def edit(job_id: str) -> ResponseReturnValue:
    """The payload of a dead job, changed and checked before it runs again."""
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
        except json.JSONDecodeError as error:
            fault = f"not JSON: {error}"
        else:
            flash("The payload was replaced, and the job waits in its queue again.")
            return redirect(url_for("jobs.show", job_id=job_id))
    return render_template("edit.html", letter=letter, text=text, fault=fault), 422 if fault else 200


@blueprint.post("/jobs/<job_id>/requeue")
def requeue(job_id: str) -> ResponseReturnValue:
    """Runs a dead job again, with all its attempts."""
    done = dead_letters.requeue([job_id])
    flash("The job waits in its queue again." if done else "Nothing was done: the job is not dead (any more).")
    return redirect(url_for("jobs.show", job_id=job_id))


@blueprint.post("/jobs/<job_id>/purge")
def purge(job_id: str) -> ResponseReturnValue:
    """Deletes a dead job for good."""
    if dead_letters.purge([job_id]):
        flash(f"Job {job_id} was deleted.")
        return redirect(url_for("dead.index"))
    flash("Nothing was done: the job is not dead (any more).")
    return redirect(url_for("jobs.show", job_id=job_id))


@blueprint.get("/queues/<name>")
def queue(name: str) -> ResponseReturnValue:
    """The jobs of a queue in one state, a page at a time, its lanes one after the other."""
    policy = get_policy(name)
    state = request.args.get("state", "waiting")
    state = state if state in _STATES else "waiting"
    lane = request.args.get("lane", policy.name)
    lane = lane if lane in lanes(policy.name) else policy.name
    page = max(0, request.args.get("page", 0, type=int))
    client = get_connection()
    source = key(_REGISTRIES.get(state, "queue"), lane)
    start, end = page * _PAGE, page * _PAGE + _PAGE - 1
    with client.pipeline(transaction=False) as pipeline:
        for each in lanes(policy.name):
            count = pipeline.llen if state == "waiting" else pipeline.zcard
            count(key(_REGISTRIES.get(state, "queue"), each))
        if state == "waiting":
            pipeline.lrange(source, start, end)
        elif state in ("dead", "done"):
            pipeline.zrevrange(source, start, end)
        else:
            pipeline.zrange(source, start, end)
        *counts, found = pipeline.execute()
    # An entry of the started registry is "job:execution".
    ids = [as_text(item).partition(":")[0] for item in cast("list[bytes]", found)]
    jobs = RegisteredJob.fetch_many(ids, connection=client, serializer=SERIALIZER) if ids else []
    numbers = runs_of(ids, client) if state == "dead" else [attempt_number(job) if job else None for job in jobs]
    lane_counts = dict(zip(lanes(policy.name), counts, strict=True))
    return render_template(
        "queue.html",
        queue=policy.name,
        state=state,
        states=_STATES,
        lane=lane,
        lanes=lane_counts,
        jobs=list(zip(ids, jobs, numbers, strict=True)),
        page=page,
        first=start + 1,
        last=start + len(ids),
        total=lane_counts[lane],
        attempts_of=attempts_of,
    )
