"""Download links: signed, expiring, over the export's id and never over a path."""

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
    """A download link that is refused; the message is the reason, fit for a page.

    Attributes:
        status: the HTTP status of the page: 404 or 410.
    """

    def __init__(self, reason: str, status: int) -> None:
        self.status = status
        super().__init__(reason)


def make_token(export_id: str) -> str:
    """The signed name of the export, for a URL. It reveals nothing about the export."""
    return _serializer().dumps(export_id)


def make_link(export: Export) -> tuple[str, datetime]:
    """A link and until when it works: for EXPORT_LINK_LIFETIME, at most until the file is deleted.

    It leads to the app's page at EXPORT_LINK_URL, which checks the owner of the file. Without that setting it is
    presigned where the store can (it works for everyone), otherwise the path ``/exports/<token>``.
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
    """The export behind ``token``, if ``user_id`` is its owner.

    Raises:
        LinkRefused: the token is forged or too old, the file is gone, or it belongs to another user. That one reads as
            "not found": a stranger does not learn that the file exists.
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
