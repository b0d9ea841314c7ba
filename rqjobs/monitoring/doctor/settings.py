"""Checks of settings that are valid one by one, but do not work together."""

from __future__ import annotations

import difflib
import importlib.util
import ipaddress
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from rqjobs.config.settings import QueueSettings, Settings, get_settings, is_of_django, is_setting, variables
from rqjobs.monitoring.doctor.finding import Finding, fault
from rqjobs.policies import get_policy, policies

_SHORT_PASSWORD = 8
_FEW_LETTERS = 8  # distinct ones: 16 random characters have 13 to 16, "1234123412341234" has 4
_WIDE = {4: 8, 6: 16}  # prefixes of networks that are wider than a private one, 10.0.0.0/8 or fd00::/16
_METADATA = tuple(map(ipaddress.ip_address, ("169.254.169.254", "fd00:ec2::254")))
"""The addresses at which cloud machines get their credentials."""
_CLOSE, _VERY_CLOSE = 0.85, 0.9  # of difflib: 0.9 is one letter of ten


def contradictions() -> Iterator[Finding]:
    """Reports settings that contradict each other."""
    settings = get_settings()
    yield from _mail(settings)
    yield from _misspelt()
    if settings.webhook_timeout > get_policy("webhooks").timeout:
        said = "WEBHOOK_TIMEOUT is longer than RQJOBS_WEBHOOKS_TIMEOUT: deliveries would be cut off without a status"
        yield fault("", said, "make WEBHOOK_TIMEOUT the shorter one")
    if settings.rqjobs_lease < timedelta(seconds=5):
        said = (
            f"RQJOBS_LEASE={settings.rqjobs_lease.total_seconds():g}s: a short pause of the machine looks like a death"
        )
        yield fault("", said, "RQJOBS_LEASE=30s")
    yield from _weak(settings)
    password = settings.dashboard_password
    if password is not None and 0 < len(password.get_secret_value()) < _SHORT_PASSWORD:
        yield fault("", "DASHBOARD_PASSWORD has fewer than 8 characters", "choose a longer one")
    if "://" in settings.export_url and settings.rqjobs_secret_key is None:
        said = (
            "EXPORT_URL is a shared store, and RQJOBS_SECRET_KEY is not set: each machine signs links with its own key"
        )
        yield fault("", said, "set RQJOBS_SECRET_KEY to the same text everywhere")
    if settings.export_url.startswith("s3:") and importlib.util.find_spec("s3fs") is None:
        yield fault("", "EXPORT_URL is on S3, and s3fs is not installed", "pip install 'rqjobs[s3]'")
    for name in settings.queues:
        try:
            get_policy(name)
        except LookupError as error:
            variable = f"RQJOBS_{name.upper().replace('-', '_')}_..."
            yield fault("", f"{variable} is set for a queue that does not exist: {error}", "fix its name, or remove it")


def _weak(settings: Settings) -> Iterator[Finding]:
    """Reports keys that can be guessed, and exemptions from the SSRF guard that disable it."""
    keys = {"RQJOBS_SECRET_KEY": settings.rqjobs_secret_key, "RQJOBS_CRON_TOKEN": settings.rqjobs_cron_token}
    for name, key in keys.items():
        if key is not None and len(set(key.get_secret_value())) < _FEW_LETTERS:
            command = 'python3 -c "import secrets; print(secrets.token_urlsafe(32))"'
            yield fault("", f"{name} repeats a few characters and could be guessed", f"make one with {command}")
    for word in settings.webhook_allow:
        try:
            network = ipaddress.ip_network(word, strict=False)
        except ValueError:
            continue  # a host name
        if network.prefixlen < _WIDE[network.version] or any(
            address in network for address in _METADATA if address.version == network.version
        ):
            said = f"WEBHOOK_ALLOW={word} lets webhooks reach more than a network of yours, such as cloud metadata"
            yield fault("", said, "name the receivers' hosts only; in production none")


def _misspelt() -> Iterator[Finding]:
    own = [f"RQJOBS_{policy.name.upper().replace('-', '_')}_" for policy in policies()]
    known = [name.upper() for name in Settings.model_fields]
    known += [prefix + name.upper() for prefix in own for name in QueueSettings.model_fields]
    given = variables()
    for name in given:
        if not name.isupper() or "_" not in name or is_setting(name):
            continue
        # Only similar names, because Kubernetes and others set variables too. With the correct name set, it is no typo.
        alike = _CLOSE if name.startswith("RQJOBS_") else _VERY_CLOSE
        for close in difflib.get_close_matches(name, known, 1, alike):
            if close not in given or name.startswith("RQJOBS_"):
                yield fault("", f"{name} is set, and there is no such setting", f"call it {close}, or remove it")


def _mail(settings: Settings) -> Iterator[Finding]:
    keys = {"sendgrid": settings.sendgrid_api_key, "resend": settings.resend_api_key}
    backend = settings.email_backend
    if is_of_django(variables().get("EMAIL_BACKEND")) and settings.rqjobs_email_backend is None:
        said = "EMAIL_BACKEND names a class of Django's: mails of rqjobs are written to files and not sent"
        yield fault("", said, "set RQJOBS_EMAIL_BACKEND to file, smtp, sendgrid or resend")
    if backend in keys and not keys[backend]:
        variable = f"{backend.upper()}_API_KEY"
        yield fault("", f"EMAIL_BACKEND={backend}, and {variable} is not set: no mail can be sent", f"set {variable}")
    if backend != "file" and settings.email_from.endswith("localdomain>"):
        said = f"EMAIL_BACKEND={backend} sends as {settings.email_from}"
        yield fault("", said, "set EMAIL_FROM to an address of yours")


def folders() -> Iterator[Finding]:
    """Reports folders that are missing or cannot be written to."""
    settings = get_settings()
    written = {"RQJOBS_DATA": settings.rqjobs_data}
    if "://" not in settings.export_url:
        written["EXPORT_URL"] = Path(settings.export_url)
    for name, folder in written.items():
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            yield fault("", f"{name}={folder} cannot be written to", f"make it a folder that user {os.getuid()} owns")
    if "email_templates" in settings.model_fields_set and not settings.email_templates.is_dir():
        yield fault("", f"EMAIL_TEMPLATES={settings.email_templates} is no folder", "fix the path")
