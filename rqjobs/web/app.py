"""The dashboard's Flask app: all pages are behind the login, and have the same strict headers."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any

import redis
from flask import Flask, Response, abort, current_app, g, render_template, request
from pydantic import SecretStr
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException

from rqjobs.broker.connection import PASSING, get_connection, redact
from rqjobs.broker.unreadable import UnreadableKey, is_wrong_type, reading, unreadable_keys
from rqjobs.config.secret_key import secret_key
from rqjobs.config.settings import close_data_folder, get_settings
from rqjobs.errors import RedisUnavailable, RQJobsError, SchemaMismatch
from rqjobs.policies import import_registrations
from rqjobs.security.masking import mask_text
from rqjobs.web import (
    analytics,
    auth,
    batches,
    dead,
    exports,
    hosts,
    jobs,
    overview,
    probes,
    queues,
    rq,
    show,
    webhooks,
)

_HEADERS = {
    # Nothing is loaded from other sites, and no inline script or style runs, so injected text stays text.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_NAV = (
    ("overview.index", "Overview"),
    ("dead.index", "Dead letters"),
    ("batches.index", "Batches"),
    ("webhooks.deliveries", "Webhooks"),
    ("analytics.index", "Analytics"),
    ("exports.index", "Exports"),
    ("rq_dashboard.queues_overview", "RQ"),
)


def create_app(password: str | None = None, *, let_in: Callable[[], bool] | None = None) -> Flask:
    """Returns the dashboard as a WSGI app for any server; ``rqjobs dashboard`` serves it on loopback.

    Args:
        password: overrides DASHBOARD_PASSWORD. One of the two is needed.
        let_in: replaces the password by the surrounding app's login: whether the current request is allowed.

    Raises:
        RQJobsError: there is no password.
        InvalidSettings: the settings are invalid; the message names every fault.
    """
    settings = get_settings()
    given = SecretStr(password) if password else settings.dashboard_password
    if let_in is None and (given is None or not given.get_secret_value()):
        raise RQJobsError("the dashboard needs a password: set DASHBOARD_PASSWORD")
    close_data_folder()
    import_registrations()
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY=hmac.digest(secret_key().encode(), b"dashboard sessions", "sha256"),
        SESSION_COOKIE_NAME="rqjobs_session",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",  # with Strict, a link in a chat or an alert would open the login
        PERMANENT_SESSION_LIFETIME=settings.dashboard_session_lifetime,
        SESSION_REFRESH_EACH_REQUEST=let_in is not None,  # use does not extend our own sessions
        MAX_CONTENT_LENGTH=4 * 1024 * 1024,
        MAX_FORM_MEMORY_SIZE=4 * 1024 * 1024,
    )
    app.jinja_env.filters["masked"] = mask_text
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    auth.protect(app, settings, given or SecretStr(""), let_in)
    for page in (overview, queues, dead, jobs, batches, probes, webhooks, analytics, exports):
        app.register_blueprint(page.blueprint)
    rq.mount(app, redact(settings.redis_url.get_secret_value()))
    show.register(app)
    nav = [(endpoint, name) for endpoint, name in _NAV if endpoint in app.view_functions]
    app.context_processor(lambda: {"read_only": settings.dashboard_read_only, "nav": nav, "unreadable": _unreadable})
    app.before_request(_no_nul)
    app.after_request(_harden)
    if let_in is None:
        app.after_request(_https_only)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(RQJobsError, _own_error)
    app.register_error_handler(SQLAlchemyError, _database_gone)
    app.register_error_handler(RedisUnavailable, _redis_gone)
    app.register_error_handler(redis.exceptions.ResponseError, _redis_refuses)
    app.wsgi_app = hosts.TrustedProxies(  # type: ignore[method-assign]
        _reading(app.wsgi_app), settings.dashboard_trusted_proxies, settings.dashboard_url
    )
    return app


def _reading(wsgi_app: Any) -> Any:
    """Wraps ``wsgi_app`` so that its pages skip keys of the wrong type (rqjobs.broker.unreadable)."""

    def serve(environ: dict[str, Any], start_response: Any) -> Any:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return wsgi_app(environ, start_response)
        with reading():
            return wsgi_app(environ, start_response)

    return serve


def _unreadable() -> list[UnreadableKey]:
    """Returns the keys that the current page could not read."""
    try:
        return unreadable_keys(get_connection()) if getattr(g, "signed_in", False) else []
    except redis.exceptions.RedisError:  # the page of this very error
        return []


def _no_nul() -> None:
    """Refuses requests with a NUL, which PostgreSQL does not support in texts, with a clear message."""
    given = (text for texts in request.values.listvalues() for text in texts)
    if any("\0" in text for text in (request.path, *given)):
        abort(404, "There is nothing with the character NUL in it.")


def _harden(response: Response) -> Response:
    for name, value in _HEADERS.items():
        response.headers[name] = value
    if request.endpoint not in ("static", "rq_dashboard.static"):
        response.headers["Cache-Control"] = "no-store"
    return response


def _https_only(response: Response) -> Response:
    """Makes browsers use only https for a year after a request by https. Subdomains are not included."""
    if request.is_secure:
        response.headers["Strict-Transport-Security"] = "max-age=31536000"
    return response


def _page(code: int, title: str, message: str) -> tuple[str, int]:
    return render_template("error.html", title=title, message=message), code


def _http_error(error: HTTPException) -> tuple[str, int] | HTTPException:
    if error.code is None or error.code < 400:  # noqa: PLR2004  # a redirect
        return error
    return _page(error.code, error.name, error.description or "")


def _own_error(error: RQJobsError) -> tuple[str, int]:
    code = (
        404 if isinstance(error, LookupError) else 503 if isinstance(error, ConnectionError | SchemaMismatch) else 422
    )
    title = {404: "Not found", 503: "Not available"}.get(code, "That did not work")
    message = str(error)
    return _page(code, title, message[:1].upper() + message[1:])


def _database_gone(_error: Exception) -> tuple[str, int]:
    return _page(503, "The database cannot be used", "See what is wrong with it by: rqjobs doctor")


def _redis_gone(error: RedisUnavailable) -> tuple[str, int]:
    if isinstance(error, redis.exceptions.ResponseError):  # it answers, but is full, a replica, or lacks replicas
        return _redis_refuses(error)
    return _page(503, "Redis does not answer", "This page works again when Redis does; nothing was changed.")


def _redis_refuses(error: Exception) -> tuple[str, int]:
    if not isinstance(error, PASSING) and not is_wrong_type(error):  # an error of ours
        current_app.logger.error("Redis refused a page its commands", exc_info=error)
    said = str(error).rstrip(".")
    if is_wrong_type(error):
        return _page(422, "A key in Redis is of another type", f"{said}. Which one, and the fix, by: rqjobs doctor")
    return _page(503, "Redis does not take it now", f"{said}. See what is wrong with it by: rqjobs doctor")
