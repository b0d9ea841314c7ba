"""The page of exports: who exported what, the number of rows, and the expiry."""

from __future__ import annotations

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from rqjobs.processors.export.records import recent

blueprint = Blueprint("exports", __name__, url_prefix="/exports")

_SHOWN = 100


@blueprint.get("/")
def index() -> ResponseReturnValue:
    """Shows the newest exports, of one user if the URL names one."""
    user = request.args.get("user") or None
    return render_template("exports.html", exports=recent(user_id=user, limit=_SHOWN), user=user, shown=_SHOWN)
