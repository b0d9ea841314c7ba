"""The dead letters: in groups of one cause, requeued or purged by group, watched while it goes on."""

from __future__ import annotations

import math
import threading
from typing import cast

from flask import Blueprint, abort, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from rqjobs.broker.attempts import read_history
from rqjobs.broker.connection import get_connection
from rqjobs.broker.rq_schema import fetch_job
from rqjobs.dead_letters import bulk_requeue as repairs
from rqjobs.dead_letters.groups import find, look
from rqjobs.errors import JobNotFound, UnreadableJob
from rqjobs.policies import policies

blueprint = Blueprint("dead", __name__, url_prefix="/dead")

_SHOWN = 100
_MODES: tuple[repairs.Mode, ...] = ("dry-run", "requeue", "purge")


@blueprint.get("/")
def index() -> ResponseReturnValue:
    """The groups, the biggest first."""
    names = [policy.name for policy in policies()]
    queue, words = request.args.get("queue"), request.args.get("find", "").strip()
    queue = queue if queue in names else None
    return render_template(
        "dead.html", look=look(queue, words), queue=queue, queues=names, words=words, shown=_SHOWN,
        repairs=repairs.recent(),
    )  # fmt: skip


@blueprint.get("/groups/<cause>")
def group(cause: str) -> ResponseReturnValue:
    """One group: examples, and what can be done about it."""
    found = find(cause)
    if found is None:
        abort(404, "This group has no dead letters (any more).")
    running = [repair for repair in repairs.recent() if repair.cause == cause]
    newest = found.examples[0].job_id
    return render_template(
        "group.html", group=found, repairs=running, rate=repairs.RATE, traceback=_traceback(newest), shown=_SHOWN
    )


def _traceback(job_id: str) -> str | None:
    try:
        history = read_history(fetch_job(job_id, get_connection()))
    except (JobNotFound, UnreadableJob):  # deleted just now, or garbled
        return None
    return history[-1].traceback if history else None


@blueprint.post("/groups/<cause>")
def repair(cause: str) -> ResponseReturnValue:
    """Starts a repair of the group."""
    mode = cast("repairs.Mode", request.form.get("mode", ""))
    if mode not in _MODES:
        abort(400, "What is to be done was not said.")
    rate = request.form.get("rate", repairs.RATE, type=float)
    if not math.isfinite(rate):
        abort(400, "The rate is not a number of jobs a second.")
    title = request.form.get("title", cause)
    started = repairs.start(cause, title, mode, canary="canary" in request.form, rate=min(max(rate, 0.1), 10_000))
    client = get_connection()
    threading.Thread(target=repairs.run, args=(started, client), name=f"repair {started.id}", daemon=True).start()
    return redirect(url_for("dead.progress", repair_id=started.id))


@blueprint.get("/repairs/<repair_id>")
def progress(repair_id: str) -> ResponseReturnValue:
    """How far a repair is."""
    return _progress("repair.html", repair_id)


@blueprint.get("/repairs/<repair_id>/live")
def live(repair_id: str) -> ResponseReturnValue:
    """The part of the page that changes."""
    return _progress("_repair.html", repair_id)


@blueprint.post("/repairs/<repair_id>/stop")
def stop(repair_id: str) -> ResponseReturnValue:
    """Ends a repair after its present step."""
    repairs.stop(repair_id)
    return redirect(url_for("dead.progress", repair_id=repair_id))


def _progress(template: str, repair_id: str) -> ResponseReturnValue:
    found = repairs.find(repair_id)
    if found is None:
        abort(404, "There is no such repair (any more).")
    return render_template(template, repair=found)
