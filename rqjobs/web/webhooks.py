"""The pages of webhook endpoints and deliveries, with replays."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from rqjobs.broker.connection import get_connection
from rqjobs.broker.rq_schema import job_key
from rqjobs.database import get_engine
from rqjobs.database.webhook_deliveries import LOOKED_THROUGH, Filter, find, outcomes
from rqjobs.database.webhook_endpoints import list_endpoints, set_enabled
from rqjobs.security.masking import mask
from rqjobs.webhooks import replay as send_again

blueprint = Blueprint("webhooks", __name__, url_prefix="/webhooks")

_SHOWN = 50
_OUTCOMES = ("done", "retry", "dead")
_ATTEMPTS = 1000
_HOURS = (1, 6, 24, 24 * 7)
"""The periods, in hours, that a replay offers."""
_MOST_HOURS = 24 * 3650
_LAST_PAGE = 1_000_000
_PACE = 10.0
_JUDGED = 200
"""The number of newest attempts that determine an endpoint's state."""


@blueprint.get("/")
def deliveries() -> ResponseReturnValue:
    """Shows the endpoints, those with problems first, and the newest deliveries."""
    engine = get_engine()
    endpoint, outcome = request.args.get("to") or None, request.args.get("outcome")
    outcome = outcome if outcome in _OUTCOMES else None
    page = min(max(0, request.args.get("page", 0, type=int)), _LAST_PAGE)
    asked = Filter(endpoint=endpoint, outcome=outcome)
    found = find(engine, asked, _SHOWN + 1, skip=page * _SHOWN)
    endpoints = list_endpoints(engine, limit=_SHOWN + 1, named=endpoint)
    return render_template(
        "webhooks.html",
        endpoints=endpoints[:_SHOWN],
        more_endpoints=len(endpoints) > _SHOWN,
        deliveries=found[:_SHOWN],
        more=len(found) > _SHOWN,
        page=page,
        endpoint=endpoint,
        outcome=outcome,
        looked_through=LOOKED_THROUGH if asked.scans else None,
        outcomes=_OUTCOMES,
        lately=outcomes(engine, Filter(endpoint=endpoint), _JUDGED) if endpoint else None,
        hours=_HOURS,
        pace=_PACE,
    )


@blueprint.get("/deliveries/<job_id>")
def delivery(job_id: str) -> ResponseReturnValue:
    """Shows one delivery: its payload, and all attempts with their responses."""
    rows = find(get_engine(), Filter(job_id=job_id), _ATTEMPTS)
    if not rows:
        abort(404, f"There is no delivery {job_id!r} in the log.")
    stored = next((row.job for row in rows if row.job is not None), None)
    return render_template(
        "delivery.html",
        job_id=job_id,
        attempts=rows,
        job=mask(json.loads(stored)) if stored else None,
        kept=get_connection().exists(job_key(job_id)),
    )


@blueprint.post("/deliveries/<job_id>/replay")
def replay(job_id: str) -> ResponseReturnValue:
    """Sends one delivery again, even if it succeeded."""
    _send_again(Filter(job_id=job_id), delivered_too=True)
    return redirect(url_for("webhooks.delivery", job_id=job_id))


@blueprint.post("/endpoints/replay")
def replay_endpoint() -> ResponseReturnValue:
    """Sends an endpoint's recent failed deliveries again."""
    endpoint = request.form.get("name", "")
    hours = min(max(0, request.form.get("hours", _HOURS[0], type=int)), _MOST_HOURS)
    pace = min(max(0.1, request.form.get("pace", _PACE, type=float)), 1000.0)  # in this order NaN becomes 0.1
    wanted = Filter(endpoint=endpoint, since=datetime.now(UTC) - timedelta(hours=hours))
    _send_again(wanted, pace=pace, dry_run=request.form.get("mode") == "dry-run")
    return redirect(url_for("webhooks.deliveries", to=endpoint))


def _send_again(wanted: Filter, *, pace: float = _PACE, delivered_too: bool = False, dry_run: bool = False) -> None:
    done = send_again(wanted, pace=pace, delivered_too=delivered_too, dry_run=dry_run)
    words = [f"{len(done.enqueued):,} {'would be sent' if dry_run else 'are sent'} again"]
    words += [f"{len(done.under_way):,} are still under way"] if done.under_way else []
    words += [f"of {len(done.lost):,} the content is no longer in the log"] if done.lost else []
    flash("; ".join(words) + ".")


@blueprint.post("/endpoints/enable")
def enable() -> ResponseReturnValue:
    """Enables an endpoint."""
    return _set("is enabled. Send again below what it missed.", None)


@blueprint.post("/endpoints/disable")
def disable() -> ResponseReturnValue:
    """Disables an endpoint."""
    return _set("is disabled: nothing more is delivered to it.", "disabled by hand")


def _set(said: str, reason: str | None) -> ResponseReturnValue:
    name = request.form.get("name", "")
    set_enabled(get_engine(), name, reason=reason)
    flash(f"{name} {said}")
    return redirect(url_for("webhooks.deliveries", to=name))
