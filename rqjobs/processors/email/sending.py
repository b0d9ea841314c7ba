"""From an EmailJob to a mail that was sent once, or to a reason why not."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from sqlalchemy.exc import SQLAlchemyError

from rqjobs.addresses import Mailbox, parse_address
from rqjobs.attempt import Attempt, Hold
from rqjobs.database.suppressions import suppress, suppressed
from rqjobs.errors import PermanentFailure, RetryLater, RQJobsError
from rqjobs.jobs import EmailJob
from rqjobs.jobs.email import Attachment, addresses
from rqjobs.logs import event
from rqjobs.mail import TemplateFault, render
from rqjobs.processors.email.attachments import read_attachments
from rqjobs.processors.email.backends import Backend, get_backend
from rqjobs.processors.email.effects import Effect, read_effect
from rqjobs.processors.email.message import Mail, message_id
from rqjobs.processors.email.outcome import NotSent, Receipt, UnknownOutcome
from rqjobs.processors.email.replies import is_hard_bounce, later
from rqjobs.settings import get_settings

_DATABASE_WAIT = timedelta(seconds=30)


def send(job: EmailJob, attempt: Attempt) -> dict[str, Any]:
    """Sends the mail, once over all attempts.

    Returns:
        ``message_id``, ``backend``, ``accepted`` (how many addresses), ``refused`` and ``suppressed`` (each address
        with the reason), ``provider_id``.

    Raises:
        PermanentFailure: the template, an attachment, the settings or the other side says no for good; or the outcome
            of an earlier attempt is unknown and EMAIL_UNKNOWN_OUTCOME is ``hold``.
        RetryLater: the other side said when.
        NotSent: it was certainly not sent, and may be next time.
        UnknownOutcome: it may have been sent.
    """
    backend = get_backend()
    effect = read_effect(attempt)
    if effect.state == "sent":
        sender = parse_address(job.sender or get_settings().email_from)
        return _result(effect, backend, {}, message_id(effect.key, sender))
    effect = _after_unknown(effect, backend)
    mail, dropped = _mail(job, effect)
    begun = effect

    def begin() -> None:
        nonlocal begun
        begun = effect.begin(backend.name)

    try:
        receipt = backend.send(mail, begin, attempt.remaining)
    except (PermanentFailure, RetryLater, NotSent):
        if begun is not effect:
            effect.forget()
        raise
    except UnknownOutcome as error:
        if begun is not effect and get_settings().email_unknown_outcome == "hold" and not backend.covers(begun):
            raise PermanentFailure(_held(begun, str(error))) from error
        raise
    settled = _settle(begun, receipt, attempt)
    return _result(settled, backend, dropped, mail.message_id)


def admit(jobs: Sequence[tuple[EmailJob, Attempt]]) -> Sequence[Hold | None]:
    """Holds mails back that the provider would only refuse now: its rate is kept by all workers together."""
    waits = get_backend().line([attempt for _job, attempt in jobs])
    now = datetime.now(UTC)
    return [Hold(now + timedelta(seconds=wait), "the provider's rate limit") if wait else None for wait in waits]


def _after_unknown(effect: Effect, backend: Backend) -> Effect:
    """What to do with a mail that an earlier attempt may have sent."""
    if effect.state != "sending" or backend.covers(effect):
        return effect
    again = replace(effect, unknown=effect.unknown + 1)
    if get_settings().email_unknown_outcome == "hold":
        if not effect.was_told():
            raise PermanentFailure(_held(effect, "its worker died meanwhile"))
        again = replace(again, state="released")
    event(logging.WARNING, "mail sent again, its outcome was unknown", id=effect.job_id)
    return again


def _held(effect: Effect, reason: str) -> str:
    words = " ".join(reason.split())  # on one line, for Effect.was_told
    return (
        f"the mail {effect.key} may have been sent. It was handed over at {effect.handed_over}: {words}. "
        f"Look whether it has arrived; if not, send it by: rqjobs failed requeue {effect.job_id}"
    )


def _mail(job: EmailJob, effect: Effect) -> tuple[Mail, dict[str, str]]:
    """The mail, and who of its recipients is suppressed."""
    settings = get_settings()
    boxes = {name: [parse_address(text) for text in addresses(getattr(job, name))] for name in ("to", "cc", "bcc")}
    done = frozenset({*effect.accepted, *effect.refused})  # who an earlier attempt had refused, is suppressed by now
    everyone = [box.address for found in boxes.values() for box in found]
    dropped = {address: reason for address, reason in _suppressed(everyone).items() if address not in done}
    kept = {name: [box for box in found if box.address not in dropped] for name, found in boxes.items()}
    if not kept["to"] or done.union(dropped).issuperset(everyone):
        reasons = "; ".join(f"{address}: {reason}" for address, reason in dropped.items())
        raise PermanentFailure(f"suppressed, nothing is sent to {reasons}. Lift it: rqjobs email suppressions lift ...")
    try:
        content = render(job.template, job.data, subject=job.subject)
    except TemplateFault as fault:
        raise PermanentFailure(str(fault)) from fault
    mail = Mail(
        key=effect.key,
        sender=parse_address(job.sender or settings.email_from),
        to=kept["to"],
        cc=kept["cc"],
        bcc=kept["bcc"],
        reply_to=_box(job.reply_to),
        subject=content.subject,
        text=content.text,
        html=content.html,
        headers=job.headers,
        files=read_attachments(cast("list[Attachment]", job.attachments), settings),
        tags=job.tags,
        done=done,
    )
    return mail, dropped


def _box(text: str | None) -> Mailbox | None:
    return parse_address(text) if text else None


def _settle(begun: Effect, receipt: Receipt, attempt: Attempt) -> Effect:
    """Writes what became of the mail; what is left of a partly refused one is tried again."""
    accepted = [*begun.accepted, *receipt.accepted]
    refused = begun.refused | receipt.refused
    bounced = {address: words for address, words in receipt.refused.items() if is_hard_bounce(words)}
    if receipt.later:
        begun.settle("partial", accepted=accepted, refused=refused)
    elif accepted:
        begun = begun.settle("sent", accepted=accepted, refused=refused, provider_id=receipt.provider_id)
    _remember(bounced, attempt.job_id)
    words = "; ".join(f"{address}: {reason}" for address, reason in (receipt.later or refused).items())
    if receipt.later:
        raise later(f"{len(accepted)} accepted, not yet accepted {words}")
    if not accepted:
        raise PermanentFailure(f"every recipient was refused: {words}")
    return begun


def _suppressed(found: list[str]) -> dict[str, str]:
    try:
        return suppressed(found)
    except (RQJobsError, SQLAlchemyError) as error:  # a database that is away for a minute must not cost a mail
        raise RetryLater(_DATABASE_WAIT, f"the suppression list cannot be read: {error}", counts=False) from error


def _remember(bounced: dict[str, str], job_id: str) -> None:
    try:
        suppress(bounced, job_id=job_id)
    except (RQJobsError, SQLAlchemyError) as error:  # the mail's own outcome stands; the next bounce says it again
        event(logging.WARNING, "bounces were not remembered", id=job_id, error=str(error))


def _result(effect: Effect, backend: Backend, dropped: dict[str, str], message_id: str) -> dict[str, Any]:
    return {
        "message_id": message_id,
        "backend": backend.name,
        "accepted": len(effect.accepted),
        "refused": effect.refused,
        "suppressed": dropped,
        "provider_id": effect.provider_id,
    }
