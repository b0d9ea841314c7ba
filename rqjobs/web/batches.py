"""The pages of batches and chains: their progress, and the actions on them."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, url_for
from flask.typing import ResponseReturnValue

from rqjobs.batches import get_batch, list_batches

blueprint = Blueprint("batches", __name__, url_prefix="/batches")

_SHOWN = 100
_DEAD_SHOWN = 20


@blueprint.get("/")
def index() -> ResponseReturnValue:
    """Shows the batches: those that are not done first, each part with the newest first."""
    found = list_batches(_SHOWN + 1)
    return render_template("batches.html", batches=found[:_SHOWN], more=len(found) > _SHOWN)


@blueprint.get("/<batch_id>")
def show(batch_id: str) -> ResponseReturnValue:
    """Shows one batch: its progress, its dead members, the jobs that wait for it."""
    return _page("batch.html", batch_id)


@blueprint.get("/<batch_id>/live")
def live(batch_id: str) -> ResponseReturnValue:
    """Returns the part of the page that changes."""
    return _page("_batch.html", batch_id)


def _page(template: str, batch_id: str) -> ResponseReturnValue:
    batch = get_batch(batch_id)
    dead = sorted(batch.dead_ids())[:_DEAD_SHOWN]
    return render_template(template, batch=batch.read(), dead=dead)


@blueprint.post("/<batch_id>/cancel")
def cancel(batch_id: str) -> ResponseReturnValue:
    """Deletes the waiting members, and the batch."""
    flash(f"The batch was cancelled; {get_batch(batch_id).cancel():,} of its jobs were deleted.")
    return redirect(url_for("batches.index"))


@blueprint.post("/<batch_id>/requeue-dead")
def requeue_dead(batch_id: str) -> ResponseReturnValue:
    """Puts the dead members back into their queues."""
    flash(f"{len(get_batch(batch_id).requeue_dead()):,} jobs wait in their queues again.")
    return redirect(url_for("batches.show", batch_id=batch_id))
