"""The dead letters: failure groups, requeued or purged by group, with progress."""

from __future__ import annotations

import math
import threading
from typing import cast

from flask import Blueprint, abort, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from rqjobs.broker.attempts import read_history
from rqjobs.broker.connection import get_connection
from rqjobs.broker.rq_schema import fetch_job
from rqjobs.dead_letters import bulk_requeue
from rqjobs.dead_letters.groups import find, look
from rqjobs.errors import JobNotFound, UnreadableJob
from rqjobs.policies import policies

blueprint = Blueprint("dead", __name__, url_prefix="/dead")

_SHOWN = 100
_MODES: tuple[bulk_requeue.Mode, ...] = ("dry-run", "requeue", "purge")


@blueprint.get("/")
def index() -> ResponseReturnValue:
    """Shows the failure groups, the biggest first."""
    names = [policy.name for policy in policies()]
    queue, words = request.args.get("queue"), request.args.get("find", "").strip()
    queue = queue if queue in names else None
    return render_template(
        "dead.html", look=look(queue, words), queue=queue, queues=names, words=words, shown=_SHOWN,
        bulk_requeues=bulk_requeue.recent(),
    )  # fmt: skip


@blueprint.get("/groups/<group_id>")
def group(group_id: str) -> ResponseReturnValue:
    """Shows one group: examples, and the actions on it."""
    found = find(group_id)
    if found is None:
        abort(404, "This group has no dead letters (any more).")
    running = [bulk for bulk in bulk_requeue.recent() if bulk.group_id == group_id]
    newest = found.examples[0].job_id
    return render_template(
        "group.html",
        group=found,
        bulk_requeues=running,
        rate=bulk_requeue.RATE,
        traceback=_traceback(newest),
        shown=_SHOWN,
    )


def _traceback(job_id: str) -> str | None:
    try:
        history = read_history(fetch_job(job_id, get_connection()))
    except (JobNotFound, UnreadableJob):  # just deleted, or its record cannot be read
        return None
    return history[-1].traceback if history else None


@blueprint.post("/groups/<group_id>")
def start(group_id: str) -> ResponseReturnValue:
    """Starts a bulk requeue of the group."""
    mode = cast("bulk_requeue.Mode", request.form.get("mode", ""))
    if mode not in _MODES:
        abort(400, "The form names no mode: dry-run, requeue or purge.")
    rate = request.form.get("rate", bulk_requeue.RATE, type=float)
    if not math.isfinite(rate):
        abort(400, "The rate is not a number of jobs a second.")
    title = request.form.get("title", group_id)
    started = bulk_requeue.start(
        group_id, title, mode, canary="canary" in request.form, rate=min(max(rate, 0.1), 10_000)
    )
    client = get_connection()
    threading.Thread(
        target=bulk_requeue.run, args=(started, client), name=f"bulk requeue {started.id}", daemon=True
    ).start()
    return redirect(url_for("dead.progress", bulk_id=started.id))


@blueprint.get("/repairs/<bulk_id>")
def progress(bulk_id: str) -> ResponseReturnValue:
    """Shows the progress of a bulk requeue."""
    return _progress("bulk_requeue.html", bulk_id)


@blueprint.get("/repairs/<bulk_id>/live")
def live(bulk_id: str) -> ResponseReturnValue:
    """Returns the part of the page that changes."""
    return _progress("_bulk_requeue.html", bulk_id)


@blueprint.post("/repairs/<bulk_id>/stop")
def stop(bulk_id: str) -> ResponseReturnValue:
    """Ends a bulk requeue after its current step."""
    bulk_requeue.stop(bulk_id)
    return redirect(url_for("dead.progress", bulk_id=bulk_id))


def _progress(template: str, bulk_id: str) -> ResponseReturnValue:
    found = bulk_requeue.find(bulk_id)
    if found is None:
        abort(404, "There is no such bulk requeue (any more).")
    return render_template(template, bulk=found)
