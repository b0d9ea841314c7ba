"""Who may see and change: one login, checked before every request; a token in every change."""

from __future__ import annotations

import hmac
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, Flask, abort, current_app, g, redirect, render_template, request, session, url_for
from flask.sessions import SecureCookieSessionInterface
from flask.typing import ResponseReturnValue
from markupsafe import Markup
from pydantic import SecretStr

from rqjobs.config.settings import get_settings

blueprint = Blueprint("auth", __name__)

_PUBLIC = ("auth.login", "static")
_PROBES = ("probes.metrics", "probes.health", "probes.ready")
"""What machines ask: they may say user name and password with each request instead (HTTP Basic)."""
_SAFE = ("GET", "HEAD", "OPTIONS")
_TRIES, _WINDOW = 10, 60.0
"""So many wrong passwords in so many seconds from one address, then nobody is let in from there for a while. Machines
are counted apart: a scraper with an old password must not lock out the people."""
_ADDRESSES = 1000  # that are remembered


def protect(app: Flask, username: str, password: SecretStr, let_in: Callable[[], bool] | None = None) -> None:
    """Puts the login before every route of ``app``, known and unknown, whatever is mounted later.

    With ``let_in``, that is the login, and no password opens anything.
    """
    app.extensions["rqjobs_login"] = _Login(username, password)
    app.extensions["rqjobs_let_in"] = let_in
    app.session_interface = _Sessions()
    app.register_blueprint(blueprint)
    app.before_request(_guard)
    app.context_processor(
        lambda: {
            "csrf": _hidden_token,
            "csrf_token": _token,
            "signed_in": getattr(g, "signed_in", False),
            "own_login": let_in is None,
        }
    )


class _Sessions(SecureCookieSessionInterface):
    """Flask's sessions; a browser that came by https sends the cookie by https only."""

    def get_cookie_secure(self, app: Flask) -> bool:
        """Whether this request came by https, at a proxy before us or here."""
        forwarded = request.headers.get("X-Forwarded-Proto", "")
        return super().get_cookie_secure(app) or request.is_secure or forwarded.startswith("https")


class _Login:
    def __init__(self, username: str, password: SecretStr) -> None:
        self._wanted = (username.encode(), password.get_secret_value().encode())
        self.mark = sha256(b"\0".join(self._wanted)).hexdigest()[:32]
        """In each session: another password ends them all."""
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()

    def closed(self, who: str) -> bool:
        """Whether too many wrong passwords came lately from ``who``."""
        wrong = self._wrong.get(who)
        return wrong is not None and len(wrong) == _TRIES and time.monotonic() - wrong[0] < _WINDOW

    def check(self, who: str, username: str | None, password: str | None) -> bool:
        """Whether both are right; takes as long whichever is wrong."""
        if self.closed(who):
            return False
        given = ((username or "").encode(), (password or "").encode())
        name, word = (hmac.compare_digest(*pair) for pair in zip(self._wanted, given, strict=True))
        right = name and word  # both were compared
        if not right:
            self._wrong.setdefault(who, deque(maxlen=_TRIES)).append(time.monotonic())
            self._wrong.move_to_end(who)
            while len(self._wrong) > _ADDRESSES:
                self._wrong.popitem(last=False)
        return right


def _login_of(app: Flask) -> _Login:
    login: _Login = app.extensions["rqjobs_login"]
    return login


def _guard() -> ResponseReturnValue | None:
    login = _login_of(current_app)
    session.permanent = True
    let_in: Callable[[], bool] | None = current_app.extensions["rqjobs_let_in"]
    if let_in is not None:
        g.signed_in = let_in()
        if not g.signed_in:
            abort(403, "Sign in to the app first, as somebody who may see this.")
    else:
        g.signed_in = hmac.compare_digest(str(session.get("login", "")), login.mark)
    if not g.signed_in and request.endpoint not in _PUBLIC and not _by_machine(login):
        return _refuse()
    if request.method not in _SAFE:
        _check_change()
    return None


def _by_machine(login: _Login) -> bool:
    if request.endpoint not in _PROBES or request.method not in _SAFE:
        return False
    given = request.authorization
    return (
        given is not None
        and given.type == "basic"
        and login.check(f"machine at {request.remote_addr}", given.username, given.password)
    )


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
    """A change needs the session's token, and comes from a page of ours."""
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
    """The one page that is open to all."""
    target = local(request.values.get("next"))
    if g.signed_in:
        return redirect(target)
    context: dict[str, Any] = {"next": request.values.get("next") or "", "error": None}
    if request.method == "GET":
        return render_template("login.html", **context)
    guard, who = _login_of(current_app), str(request.remote_addr)
    if guard.closed(who):
        context["error"] = "Too many wrong passwords. Wait a minute."
        return render_template("login.html", **context), 429
    if not guard.check(who, request.form.get("username"), request.form.get("password")):
        context["error"] = "User name or password is wrong."
        return render_template("login.html", **context), 401
    session.clear()
    session["login"] = guard.mark
    _token()
    return redirect(target)


@blueprint.post("/logout")
def logout() -> ResponseReturnValue:
    """Ends this session."""
    session.clear()
    return redirect(url_for("auth.login"))


def local(target: str | None) -> str:
    """``target`` if it is a path of this app, else the overview."""
    home = url_for("overview.index")
    if not target or not target.startswith("/") or target[1:2] in ("/", "\\") or not target.isprintable():
        return home
    return request.script_root + target
