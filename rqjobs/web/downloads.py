"""The page of download links, for the app to mount: it sends a file only to its owner."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from flask import Blueprint, Response, abort, redirect, send_file
from flask.typing import ResponseReturnValue

from rqjobs.processors.export.links import LinkRefused, open_link
from rqjobs.processors.export.storage import get_storage

_DIRECT = timedelta(minutes=5)
"""The lifetime of a store's own link, to which a download is redirected."""

_TYPES = {
    "csv": "text/csv",
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "pdf": "application/pdf",
}


def downloads(owner: Callable[[], str | None]) -> Blueprint:
    """Returns a blueprint with one route, ``GET /<token>``, to be mounted at the path of EXPORT_LINK_URL.

        app.register_blueprint(downloads(lambda: session.get("user_id")), url_prefix="/exports")

    Args:
        owner: returns the id of the current request's user, as in DataExportJob.user_id; None if there is none.
            If it raises an exception, such as a redirect to the login, that is the response.
    """
    blueprint = Blueprint("rqjobs_downloads", __name__)

    @blueprint.get("/<token>")
    def download(token: str) -> ResponseReturnValue:
        try:
            export = open_link(token, owner())
        except LinkRefused as refused:
            abort(refused.status, str(refused))
        storage = get_storage(export.location)
        direct = storage.presign(export.file_name, _DIRECT, export.download_name)
        if direct is not None:
            return _private(redirect(direct))  # type: ignore[arg-type]  # werkzeug's response is Flask's
        try:
            response = send_file(
                storage.local_path(export.file_name) or storage.open(export.file_name),
                mimetype=_TYPES[export.file_name.rpartition(".")[2]],
                as_attachment=True,
                download_name=export.download_name,
                last_modified=export.created_at,
                conditional=True,  # a broken download can be resumed
            )
        except FileNotFoundError:
            abort(410, "This file is deleted. Request a new export.")
        return _private(response)

    return blueprint


def _private(response: Response) -> Response:
    response.headers["Cache-Control"] = "private, no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
