"""EMAIL_BACKEND=sendgrid: SendGrid's v3 Mail Send API, which has no idempotency keys."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from rqjobs.attempt import Attempt
from rqjobs.config.addresses import Mailbox
from rqjobs.config.settings import get_settings
from rqjobs.errors import DependencyUnavailable, PermanentFailure, RetryLater
from rqjobs.processors.email.backends import Begin
from rqjobs.processors.email.backends.http import Answer, post
from rqjobs.processors.email.message import Mail
from rqjobs.processors.email.outcome import NotSent, Receipt, UnknownOutcome
from rqjobs.processors.email.send_record import SendRecord

_ATTACHED = {"disposition": "attachment"}
_SLOW_DOWN = timedelta(seconds=10)


class SendGridBackend:
    """Posts mails to SENDGRID_API_URL."""

    name = "sendgrid"
    dependency = "SendGrid"

    def send(self, mail: Mail, begin: Begin, remaining: float) -> Receipt:
        """Sends the mail by one POST; 202 means that SendGrid has accepted it."""
        settings = get_settings()
        if settings.sendgrid_api_key is None:
            raise DependencyUnavailable("SendGrid", "EMAIL_BACKEND is sendgrid: set SENDGRID_API_KEY")
        url = f"{settings.sendgrid_api_url}/v3/mail/send"
        key = settings.sendgrid_api_key.get_secret_value()
        answer = post("SendGrid", url, key, payload_of(mail), begin, remaining=remaining)
        if answer.status // 100 == 2:  # noqa: PLR2004
            return Receipt(accepted=mail.recipients, provider_id=answer.headers.get("x-message-id"))
        raise _failure(answer, own_sender=mail.own_sender)

    def prevents_duplicate(self, record: SendRecord) -> bool:  # noqa: ARG002
        """Returns False: SendGrid accepts the same mail twice."""
        return False

    def waits(self, attempts: Sequence[Attempt]) -> list[float]:
        """Returns zeros: Mail Send allows a higher rate than workers reach; RQJOBS_EMAIL_RATE sets a limit."""
        return [0.0] * len(attempts)


BACKEND = SendGridBackend()


def payload_of(mail: Mail) -> dict[str, Any]:
    """Returns the body of the request.

    SendGrid refuses empty values, HTML before text, an address that occurs twice in any case, and ``,`` or ``;`` in a
    recipient's name.
    """
    content = [{"type": "text/plain", "value": mail.text}] if mail.text.strip() else []
    if mail.html:
        content.append({"type": "text/html", "value": mail.html})
    payload: dict[str, Any] = {
        "personalizations": [_recipients(mail)],
        "from": _person(mail.sender),
        "subject": mail.subject,
        "content": content,
        "headers": {"Message-ID": mail.message_id, **mail.headers},
        "custom_args": {"rqjobs_id": mail.key},
    }
    if mail.reply_to:
        payload["reply_to"] = _person(mail.reply_to)
    if mail.tags:
        payload["categories"] = list(dict.fromkeys(mail.tags))
    if mail.files:
        payload["attachments"] = [
            {
                "content": base64.b64encode(file.data).decode(),
                "type": file.content_type,
                "filename": file.name,
                **({"disposition": "inline", "content_id": file.content_id} if file.content_id else _ATTACHED),
            }
            for file in mail.files
        ]
    return payload


def _recipients(mail: Mail) -> dict[str, list[dict[str, str]]]:
    seen: set[str] = set()
    found: dict[str, list[dict[str, str]]] = {}
    for field, boxes in mail.people.items():
        for box in boxes:
            if box.address.lower() not in seen:
                seen.add(box.address.lower())
                name = " ".join(re.sub("[,;]", " ", box.name).split())
                found.setdefault(field, []).append(_person(box._replace(name=name)))
    return found


def _person(box: Mailbox) -> dict[str, str]:
    return {"email": box.address, **({"name": box.name} if box.name else {})}


def _failure(answer: Answer, *, own_sender: bool) -> Exception:
    errors = answer.body.get("errors") if isinstance(answer.body, dict) else None
    messages = [str(error.get("message")) for error in errors or () if isinstance(error, dict)]
    reason = f"SendGrid answered {answer.status}: {'; '.join(messages) or 'no reason given'}"[:500]
    if answer.status == 429:  # noqa: PLR2004
        return RetryLater(answer.retry_after(_SLOW_DOWN), reason, counts=False)
    if answer.status == 408:  # noqa: PLR2004
        return NotSent(reason)
    fields = [error.get("field") for error in errors or () if isinstance(error, dict)]
    about_mail = own_sender and any(fields)  # a 403 about the field "from" means that the sender is not verified
    if answer.status in (401, 500, 503) or (answer.status == 403 and not about_mail):  # noqa: PLR2004
        return DependencyUnavailable("SendGrid", reason)
    if answer.status >= 500:  # noqa: PLR2004  # from a gateway: the mail may have been accepted
        return UnknownOutcome(reason)
    return PermanentFailure(reason)
