"""The dashboard and the downloads as Django views."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.urls import NoReverseMatch, reverse
from django.utils.module_loading import import_string
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from werkzeug.test import create_environ, run_wsgi_app

from rqjobs.integrations.bridge import Lazy, admitted, dashboard_app, downloads_app
from rqjobs.integrations.django.conf import configured

_dashboard = Lazy(dashboard_app)
_downloads = Lazy(downloads_app)


@csrf_exempt  # each page has its own CSRF token, with the same session cookie policy
@never_cache
def dashboard(request: HttpRequest, path: str = "") -> HttpResponseBase:
    """Serves the dashboard to superusers, or to the users that ``RQJOBS = {"DASHBOARD_ACCESS": callable}`` accepts."""
    user = request.user
    if not user.is_authenticated:
        return redirect_to_login(request.get_full_path(), _login_url())
    if not (user.is_active and _access()(user)):
        raise PermissionDenied
    return _pass_on(_dashboard, request, str(user.pk), path)


@csrf_exempt
@never_cache
def downloads(request: HttpRequest, path: str) -> HttpResponseBase:
    """Serves an export's file to its owner: ``DataExportJob.user_id`` is the user's primary key."""
    user = request.user
    return _pass_on(_downloads, request, str(user.pk) if user.is_authenticated else None, path)


def _access() -> Callable[[Any], bool]:
    access = configured().get("DASHBOARD_ACCESS", _is_superuser)
    chosen: Callable[[Any], bool] = import_string(access) if isinstance(access, str) else access
    return chosen


def _is_superuser(user: Any) -> bool:
    return bool(user.is_superuser)


def _login_url() -> str | None:
    try:
        return str(reverse("admin:login"))
    except NoReverseMatch:
        return None  # LOGIN_URL


def _pass_on(app: Lazy, request: HttpRequest, user: str | None, path: str) -> HttpResponseBase:
    """Returns the response of one of our WSGI apps to ``request``, under WSGI and ASGI."""
    whole = request.path
    prefix = whole[: len(whole) - len(path)] if path else whole
    environ = create_environ(
        path="/",
        base_url=f"{request.scheme}://{request.get_host()}/",
        query_string=request.META.get("QUERY_STRING", ""),
        method=request.method,
        headers=dict(request.headers),
        input_stream=io.BytesIO(request.body),
    )
    environ["REMOTE_ADDR"] = request.META.get("REMOTE_ADDR", "")
    body, status, headers = run_wsgi_app(app, admitted(environ, user, prefix, path))
    response = StreamingHttpResponse(body, status=int(status.split(" ", 1)[0]))
    for name in {name for name, _ in headers if name.lower() != "set-cookie"}:
        response[name] = ", ".join(headers.getlist(name))
    for cookie in headers.getlist("Set-Cookie"):
        response.cookies.load(cookie)
    return response
