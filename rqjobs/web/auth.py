"""Access to the dashboard: one login, checked before every request, and a CSRF token in every change."""

from __future__ import annotations

import hmac
import math
import secrets
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    current_app,
    g,
    make_response,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from flask.typing import ResponseReturnValue
from itsdangerous import BadData, URLSafeTimedSerializer
from markupsafe import Markup
from pydantic import SecretStr

from rqjobs.config.durations import spell
from rqjobs.config.settings import Settings, get_settings
from rqjobs.web.hosts import FORWARDED, allowed_names, is_allowed
from rqjobs.web.login_limits import Counted, LoginLimits, counted_as
from rqjobs.web.sessions import CookieSessions, SignIns, cookie_name

blueprint = Blueprint("auth", __name__)

_PUBLIC = ("auth.login", "static")
_PROBES = ("probes.metrics", "probes.health", "probes.ready")
"""Routes for machines, which may send user name and password with each request (HTTP Basic)."""
_SAFE = ("GET", "HEAD", "OPTIONS")
_DEVICE_COOKIE = "rqjobs_device"
_DEVICE_LIFETIME = 180 * 24 * 3600
"""Seconds for which a browser is recognised after a login; see rqjobs.web.login_limits."""


def protect(app: Flask, settings: Settings, password: SecretStr, let_in: Callable[[], bool] | None = None) -> None:
    """Requires the login for every route of ``app``, also for unknown ones and those that are mounted later.

    With ``let_in`` the surrounding app decides; then there is no password, and the host is not checked here.
    """
    app.extensions["rqjobs_login"] = _Login(bytes(app.config["SECRET_KEY"]), settings, password)
    app.extensions["rqjobs_let_in"] = let_in
    app.session_interface = CookieSessions()
    app.register_blueprint(blueprint)
    if let_in is None:
        names = allowed_names(settings.dashboard_url, settings.dashboard_hosts)
        app.before_request(lambda: _check_host(names))
    app.before_request(_guard)
    app.context_processor(
        lambda: {
            "csrf": _hidden_token,
            "csrf_token": _token,
            "signed_in": getattr(g, "signed_in", False),
            "own_login": let_in is None,
        }
    )


class _Login:
    """User name and password, the sessions, and the known devices."""

    def __init__(self, key: bytes, settings: Settings, password: SecretStr) -> None:
        self._wanted = (settings.dashboard_username.encode(), password.get_secret_value().encode())
        # Of user name and password, so that a session ends when they change.
        of_login = hmac.digest(key, b"login\0" + b"\0".join(self._wanted), "sha256")
        self.sign_ins = SignIns(of_login, settings.dashboard_session_lifetime, settings.dashboard_session_idle)
        self.limits = LoginLimits()
        self._devices = URLSafeTimedSerializer(key, salt="device")

    def is_right(self, username: str | None, password: str | None) -> bool:
        """Returns whether both are right, in the same time for every wrong input."""
        given = ((username or "").encode(), (password or "").encode())
        name, word = (hmac.compare_digest(*pair) for pair in zip(self._wanted, given, strict=True))
        return name and word  # both are compared first

    def device(self) -> str | None:
        """Returns the id of the browser of this request, if it has logged in before."""
        cookie = request.cookies.get(cookie_name(_DEVICE_COOKIE), "")
        try:
            return str(self._devices.loads(cookie, max_age=_DEVICE_LIFETIME))
        except BadData:
            return None

    def remember_device(self, response: Response) -> None:
        """Sets the cookie by which the browser is recognised."""
        response.set_cookie(
            cookie_name(_DEVICE_COOKIE),
            str(self._devices.dumps(self.device() or secrets.token_urlsafe(12))),
            max_age=_DEVICE_LIFETIME,
            secure=request.is_secure,
            httponly=True,
            samesite="Strict",
        )


def _login_of(app: Flask) -> _Login:
    login: _Login = app.extensions["rqjobs_login"]
    return login


def _check_host(names: frozenset[str]) -> None:
    if not is_allowed(request.environ.get("HTTP_HOST", ""), names):
        abort(421, "This host name is not allowed. Add it to DASHBOARD_URL or DASHBOARD_HOSTS.")


def _guard() -> ResponseReturnValue | None:
    if request.endpoint == "static":
        return None
    login = _login_of(current_app)
    if not session.permanent:
        session.permanent = True
    let_in: Callable[[], bool] | None = current_app.extensions["rqjobs_let_in"]
    if let_in is not None:
        g.signed_in = let_in()
        if not g.signed_in:
            abort(403, "Sign in to the app first, as a user who may see this.")
    else:
        session_id = session.get("id")
        g.signed_in = isinstance(session_id, str) and login.sign_ins.is_live(
            session_id, renew="X-Live" not in request.headers
        )
    if not g.signed_in and request.endpoint not in _PUBLIC and not _by_machine(login):
        return _refuse()
    if request.method not in _SAFE:
        _check_change()
    return None


def _by_machine(login: _Login) -> bool:
    if request.endpoint not in _PROBES or request.method not in _SAFE:
        return False
    given = request.authorization
    if given is None or given.type != "basic":
        return False
    counted = _counted("machines")
    if login.limits.admit(counted) > 0:
        return False
    right = login.is_right(given.username, given.password)
    if right:
        login.limits.take_back(counted)
    return right


def _counted(kind: str, device: str | None = None) -> Counted:
    forwarded = bool(request.environ.get(FORWARDED))
    return counted_as(kind, request.remote_addr, device=device, forwarded=forwarded)


def _refuse() -> ResponseReturnValue:
    if request.endpoint in _PROBES:
        return "sign in\n", 401, {"WWW-Authenticate": 'Basic realm="rqjobs"', "Content-Type": "text/plain"}
    accepted = request.accept_mimetypes
    wants_page = request.method in _SAFE and "X-Live" not in request.headers and (not accepted or accepted.accept_html)
    if not wants_page:
        abort(401, "Sign in first.")
    target = request.full_path.rstrip("?") if request.path != "/" else None
    return redirect(url_for("auth.login", next=target))


def _check_change() -> None:
    """Refuses a change without the session's token, or from a page of another site."""
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.host:
        abort(403, "This request came from a page of another site.")
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        abort(403, "This request came from a page of another site.")
    given = request.headers.get("X-CSRF-Token") or request.form.get("csrf_token", "")
    if not hmac.compare_digest(given.encode(), str(session.get("token", "-")).encode()):
        abort(403, "This page was open for too long. Go back, reload it, and try again.")
    if get_settings().dashboard_read_only and request.endpoint not in ("auth.login", "auth.logout"):
        abort(403, "This dashboard is read-only (DASHBOARD_READ_ONLY).")


def _token() -> str:
    if "token" not in session:
        session["token"] = secrets.token_urlsafe(24)
    return str(session["token"])


def _hidden_token() -> Markup:
    return Markup('<input type="hidden" name="csrf_token" value="{}">').format(_token())


@blueprint.route("/login", methods=["GET", "POST"])
def login() -> ResponseReturnValue:
    """The login page, the only public page."""
    target = local(request.values.get("next"))
    if g.signed_in:
        return redirect(target)
    context: dict[str, Any] = {"next": request.values.get("next") or "", "error": None}
    if request.method == "GET":
        return render_template("login.html", **context)
    guard = _login_of(current_app)
    counted = _counted("people", guard.device())
    if (wait := guard.limits.admit(counted)) > 0:
        context["error"] = f"Too many wrong passwords. Wait {spell(timedelta(seconds=math.ceil(wait)))}."
        return render_template("login.html", **context), 429, {"Retry-After": str(math.ceil(wait))}
    if not guard.is_right(request.form.get("username"), request.form.get("password")):
        context["error"] = "User name or password is wrong."
        return render_template("login.html", **context), 401
    guard.limits.take_back(counted)
    # A new id and a new token, so that a cookie planted before the login is useless after it.
    session.clear()
    session.permanent = True
    session["id"] = guard.sign_ins.start()
    _token()
    response = make_response(redirect(target))
    guard.remember_device(response)
    return response


@blueprint.post("/logout")
def logout() -> ResponseReturnValue:
    """Ends this session."""
    session_id = session.get("id")
    if isinstance(session_id, str):
        _login_of(current_app).sign_ins.end(session_id)
    session.clear()
    return redirect(url_for("auth.login"))


def local(target: str | None) -> str:
    """Returns ``target`` if it is a path of this app, otherwise that of the overview."""
    home = url_for("overview.index")
    if not target or not target.startswith("/") or target[1:2] in ("/", "\\") or not target.isprintable():
        return home
    return request.script_root + target
