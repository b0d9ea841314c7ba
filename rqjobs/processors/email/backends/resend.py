"""EMAIL_BACKEND=resend: Resend's API, whose Idempotency-Key makes a repetition safe for a day."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from rqjobs.attempt import Attempt
from rqjobs.broker.connection import get_connection
from rqjobs.broker.rate_limit import Cooldown, RateLimit
from rqjobs.config.settings import get_settings
from rqjobs.errors import DependencyUnavailable, PermanentFailure, RetryLater
from rqjobs.policies import priority_of
from rqjobs.processors.email.backends import Begin
from rqjobs.processors.email.backends.http import Answer, post
from rqjobs.processors.email.message import Mail, address_of
from rqjobs.processors.email.outcome import NotSent, Receipt, UnknownOutcome
from rqjobs.processors.email.send_record import SendRecord

_ACCOUNT = {"missing_api_key", "restricted_api_key", "invalid_api_key", "monthly_quota_exceeded"}
"""Errors that concern every mail of the account (resend.com/docs/api-reference/errors)."""
_KEY_KEPT = timedelta(hours=23)  # Resend keeps them for 24 hours
_QUOTA_WAIT = timedelta(hours=1)
_PATIENCE = 2.0  # the most seconds that a mail waits in its slot for the rate limit


class ResendBackend:
    """Posts mails to RESEND_API_URL."""

    name = "resend"
    dependency = "Resend"

    def send(self, mail: Mail, begin: Begin, remaining: float) -> Receipt:
        """Sends the mail by one POST, at the rate of RESEND_RATE for all workers together."""
        settings = get_settings()
        if settings.resend_api_key is None:
            raise DependencyUnavailable("Resend", "EMAIL_BACKEND is resend: set RESEND_API_KEY")
        key = settings.resend_api_key.get_secret_value()
        limit = _rate_limit()
        url, started = f"{settings.resend_api_url}/emails", time.monotonic()
        once = {"Idempotency-Key": mail.key}
        with limit.place(get_connection(), patience=min(_PATIENCE, remaining / 2)) as place:
            if not place.granted:
                raise RetryLater(timedelta(seconds=place.wait), "Resend's rate limit", counts=False)
            left = remaining - (time.monotonic() - started)
            answer = post("Resend", url, key, payload_of(mail), begin, remaining=left, headers=once)
        if answer.status // 100 == 2:  # noqa: PLR2004
            if place.pressed:
                limit.cooldown.release(get_connection())
            made = answer.body.get("id") if isinstance(answer.body, dict) else None
            return Receipt(accepted=mail.recipients, provider_id=made)
        raise _failure(answer, limit.cooldown, own_sender=mail.own_sender)

    def prevents_duplicate(self, record: SendRecord) -> bool:
        """Returns whether the first attempt is recent: for a day Resend repeats its response and sends nothing."""
        return record.backend == self.name and time.time() - record.at < _KEY_KEPT.total_seconds()

    def waits(self, attempts: Sequence[Attempt]) -> list[float]:
        """Returns the wait of each mail for the rate limit, so that none waits in a worker's slot."""
        units = [(attempt.job_id, 1, priority_of(attempt.queue)) for attempt in attempts]
        return _rate_limit().admit(get_connection(), units)


BACKEND = ResendBackend()


def _rate_limit() -> RateLimit:
    settings = get_settings()
    secret = settings.resend_api_key.get_secret_value() if settings.resend_api_key else ""
    name = f"resend-{hashlib.sha256(secret.encode()).hexdigest()[:12]}"
    rate = settings.resend_rate
    window = rate.period / min(1, rate.count)  # 0.5/s means one in 2 s
    return RateLimit(name, max(1, int(rate.count)), window, Cooldown(name))


def payload_of(mail: Mail) -> dict[str, Any]:
    """Returns the body of the request; it must be the same in every attempt, or Resend refuses the key."""
    payload: dict[str, Any] = {
        "from": address_of(mail.sender),
        **{name: [address_of(box) for box in boxes] for name, boxes in mail.people.items()},
        "subject": mail.subject,
        "text": mail.text,
        "headers": {"Message-ID": mail.message_id, **mail.headers},
    }
    if mail.html:
        payload["html"] = mail.html
    if mail.reply_to:
        payload["reply_to"] = address_of(mail.reply_to)
    if mail.tags:
        payload["tags"] = [{"name": tag, "value": "true"} for tag in dict.fromkeys(mail.tags)]
    if mail.files:
        payload["attachments"] = [
            {
                "content": base64.b64encode(file.data).decode(),
                "filename": file.name,
                "content_type": file.content_type,
                **({"content_id": file.content_id} if file.content_id else {}),
            }
            for file in mail.files
        ]
    return payload


def _failure(answer: Answer, cooldown: Cooldown, *, own_sender: bool) -> Exception:  # noqa: PLR0911  # an outcome each
    body = answer.body if isinstance(answer.body, dict) else {}
    name = str(body.get("name", ""))
    reason = f"Resend answered {answer.status} {name}: {body.get('message') or 'no reason given'}"[:500]
    if answer.status == 409 and name in ("concurrent_idempotent_requests", "resource_locked"):  # noqa: PLR2004
        return RetryLater(answer.retry_after(timedelta(seconds=5)), reason)
    if answer.status == 429 and name == "daily_quota_exceeded":  # noqa: PLR2004
        return RetryLater(answer.retry_after(_QUOTA_WAIT), reason, counts=False)
    unverified = name == "validation_error" and "not verified" in str(body.get("message")) and not own_sender
    refused = answer.status == 401 or name in _ACCOUNT or (answer.status == 403 and unverified)  # noqa: PLR2004
    if refused:
        return DependencyUnavailable("Resend", reason)
    if answer.status == 429:  # noqa: PLR2004
        wait = cooldown.press(get_connection(), answer.retry_after(timedelta(seconds=1)))
        return RetryLater(timedelta(seconds=wait), reason, counts=False)
    if answer.status == 408:  # noqa: PLR2004
        return NotSent(reason)
    if answer.status >= 500:  # noqa: PLR2004
        return UnknownOutcome(reason)
    return PermanentFailure(reason)
