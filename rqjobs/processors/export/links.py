"""Download links: signed and expiring. They contain the export's id, never a path."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from itsdangerous import BadSignature, SignatureExpired, URLSafeTimedSerializer

from rqjobs.config.secret_key import secret_key
from rqjobs.config.settings import get_settings
from rqjobs.errors import RQJobsError
from rqjobs.processors.export import records
from rqjobs.processors.export.records import Export
from rqjobs.processors.export.storage import get_storage

_S3_LONGEST = timedelta(days=7)  # AWS refuses longer ones


class LinkRefused(RQJobsError):
    """Raised when a download link is refused; the message is the reason, and may be shown on a page.

    Attributes:
        status: the HTTP status for the response: 404 or 410.
    """

    def __init__(self, reason: str, status: int) -> None:
        self.status = status
        super().__init__(reason)


def make_token(export_id: str) -> str:
    """Returns a signed token for the export, for use in a URL. It reveals nothing about the export."""
    return _serializer().dumps(export_id)


def make_link(export: Export) -> tuple[str, datetime]:
    """Returns a link and its expiry: EXPORT_LINK_LIFETIME from now, at most until the file is deleted.

    With EXPORT_LINK_URL the link leads to the app's page, which checks the owner of the file. Without it the link is
    a presigned one where the store supports that (everyone with the link can use it), otherwise the path
    ``/exports/<token>``.
    """
    settings = get_settings()
    now = datetime.now(UTC).replace(microsecond=0)
    until = min(now + settings.export_link_lifetime, export.expires_at)
    if settings.export_link_url is None:
        until_direct = min(until, now + _S3_LONGEST)
        direct = get_storage(export.location).presign(export.file_name, until_direct - now, export.download_name)
        if direct is not None:
            return direct, until_direct
    return f"{settings.export_link_url or '/exports'}/{make_token(export.id)}", until


def open_link(token: str, user_id: str | None) -> Export:
    """Returns the export of ``token``, if ``user_id`` is its owner.

    Raises:
        LinkRefused: the token is forged or too old, the file is deleted, or it belongs to another user. In the last
            case the message is "not found", so that a stranger does not learn that the file exists.
    """
    lifetime = get_settings().export_link_lifetime
    try:
        export_id = _serializer().loads(token, max_age=int(lifetime.total_seconds()))
    except SignatureExpired:
        raise LinkRefused("This link is no longer valid. Ask for a new one.", 410) from None
    except BadSignature:
        export_id = None
    export = records.find(export_id) if isinstance(export_id, str) else None
    if export is None or user_id is None or export.user_id != user_id:
        raise LinkRefused("There is no such file, or it is not yours.", 404)
    if not export.available:
        raise LinkRefused("This file has been deleted. Ask for a new export.", 410)
    return export


def _serializer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(secret_key(), salt="rqjobs.export")
