"""Webhook endpoints and the log of deliveries."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from rqjobs.database import get_engine
from rqjobs.database.webhook_deliveries import Filter, find
from rqjobs.database.webhook_endpoints import list_endpoints, set_enabled

blueprint = Blueprint("webhooks", __name__, url_prefix="/webhooks")

_SHOWN = 50
_OUTCOMES = ("done", "retry", "dead")


@blueprint.get("/")
def deliveries() -> ResponseReturnValue:
    """The endpoints, and the newest deliveries."""
    engine = get_engine()
    endpoint, outcome = request.args.get("to") or None, request.args.get("outcome")
    outcome = outcome if outcome in _OUTCOMES else None
    found = find(engine, Filter(endpoint=endpoint, outcome=outcome), _SHOWN)
    return render_template(
        "webhooks.html",
        endpoints=list_endpoints(engine)[:_SHOWN],
        deliveries=found,
        endpoint=endpoint,
        outcome=outcome,
        outcomes=_OUTCOMES,
        shown=_SHOWN,
    )


@blueprint.post("/endpoints/enable")
def enable() -> ResponseReturnValue:
    """Deliveries to the endpoint start again."""
    return _set("is enabled: its deliveries start again.", None)


@blueprint.post("/endpoints/disable")
def disable() -> ResponseReturnValue:
    """Nothing more is delivered to the endpoint."""
    return _set("is disabled: nothing more is delivered to it.", "disabled by hand")


def _set(said: str, reason: str | None) -> ResponseReturnValue:
    name = request.form.get("name", "")
    set_enabled(get_engine(), name, reason=reason)
    flash(f"{name} {said}")
    return redirect(url_for("webhooks.deliveries"))
