"""Checks of the providers' credentials, only with ``--online``. They send no mail and change nothing."""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import requests
from pydantic import SecretStr

from rqjobs.config.settings import get_settings
from rqjobs.mail.smtp import parse_smtp_url, sign_in
from rqjobs.monitoring.doctor.finding import Finding, fault, fine, skipped

_SECONDS = 10.0


def mail() -> Iterator[Finding]:
    """Checks the mail provider's key, or the login of the mail server."""
    settings = get_settings()
    match settings.email_backend:
        case "sendgrid":
            yield _ask(f"{settings.sendgrid_api_url}/v3/scopes", settings.sendgrid_api_key, "SENDGRID_API_KEY")
        case "resend":
            yield _ask(f"{settings.resend_api_url}/domains", settings.resend_api_key, "RESEND_API_KEY")
        case "smtp":
            yield _smtp(settings.smtp_url)
        case _:
            yield skipped("", "EMAIL_BACKEND=file needs no provider")


def manychat() -> Iterator[Finding]:
    """Checks ManyChat's token."""
    settings = get_settings()
    if settings.manychat_api_token is None:
        yield skipped("", "MANYCHAT_API_TOKEN is not set")
        return
    url = f"{settings.manychat_api_url}/fb/page/getInfo"
    yield _ask(url, settings.manychat_api_token, "MANYCHAT_API_TOKEN")


def _ask(url: str, secret: SecretStr | None, variable: str) -> Finding:
    if secret is None:
        return fault("", f"{variable} is not set", f"set {variable}")
    host = urlsplit(url).hostname
    headers = {"Authorization": f"Bearer {secret.get_secret_value()}"}
    try:
        status = requests.get(url, headers=headers, timeout=_SECONDS, allow_redirects=False).status_code
    except requests.RequestException as error:
        return fault(
            "", f"{host} cannot be reached: {type(error).__name__}", "check the network and the proxy settings"
        )
    if status in (401, 403):
        return fault("", f"{host} refuses {variable} ({status})", "make a new key there, and set it")
    if status >= 500:  # noqa: PLR2004
        return fault("", f"{host} answers {status}", "it is down; see its status page")
    return fine("", f"{host} accepts {variable}")


def _smtp(url: SecretStr) -> Finding:
    server = parse_smtp_url(url.get_secret_value())
    try:
        sign_in(server, _SECONDS).quit()
    except smtplib.SMTPAuthenticationError:
        return fault("", f"{server.host} refuses the login of SMTP_URL", "fix its user name and password")
    except (OSError, smtplib.SMTPException, ValueError) as error:
        return fault("", f"{server.host} cannot be used: {error}", "fix SMTP_URL, or the network")
    return fine("", f"{server.host} accepts SMTP_URL")


ASKED: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
    ("mail provider", mail),
    ("manychat", manychat),
)
