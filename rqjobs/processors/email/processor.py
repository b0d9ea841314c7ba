"""The processor of ``email``: makes a mail from the job, and sends it once."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from sqlalchemy.exc import SQLAlchemyError

from rqjobs.attempt import Attempt, Hold
from rqjobs.broker.connection import PASSING, get_connection
from rqjobs.broker.holds import report_away
from rqjobs.config.addresses import Mailbox, parse_address
from rqjobs.config.logs import event
from rqjobs.config.settings import get_settings
from rqjobs.database.outages import database_outage
from rqjobs.database.suppressions import suppress, suppressed
from rqjobs.errors import DependencyUnavailable, PermanentFailure, RetryLater, RQJobsError
from rqjobs.jobs import EmailJob
from rqjobs.jobs.email import Attachment, addresses
from rqjobs.mail import TemplateFault, render
from rqjobs.policies import base_queue
from rqjobs.processors.email.attachments import read_attachments
from rqjobs.processors.email.backends import Backend, get_backend
from rqjobs.processors.email.message import Mail, message_id
from rqjobs.processors.email.outcome import NotSent, Receipt, UnknownOutcome
from rqjobs.processors.email.replies import is_hard_bounce, later
from rqjobs.processors.email.send_record import SendRecord, read_send_record


def send(job: EmailJob, attempt: Attempt) -> dict[str, Any]:
    """Sends the mail, once over all attempts.

    Returns:
        ``message_id``, ``backend``, ``accepted`` (the number of addresses), ``refused`` and ``suppressed`` (each
        address with the reason), ``provider_id``.

    Raises:
        PermanentFailure: the template, an attachment, the settings or the provider refuses it for good; or the outcome
            of an earlier attempt is unknown and EMAIL_UNKNOWN_OUTCOME is ``hold``.
        RetryLater: the provider set a time for the next attempt.
        NotSent: it was certainly not sent, and a retry may succeed.
        DependencyUnavailable: the mail server or the database does not answer, or the server refuses all mails.
        UnknownOutcome: it may have been sent.
    """
    backend = get_backend()
    record = read_send_record(attempt)
    if record.state == "sent":
        sender = parse_address(job.sender or get_settings().email_from)
        return _result(record, backend, {}, message_id(record.key, sender))
    record = _after_unknown(record, backend)
    mail, dropped = _mail(job, record)
    begun = record

    def begin() -> None:
        nonlocal begun
        begun = record.begin(backend.name, attempt)

    try:
        receipt = backend.send(mail, begin, attempt.remaining)
    except (PermanentFailure, RetryLater, NotSent, DependencyUnavailable):
        if begun is not record:
            record.forget(attempt)
        raise
    except UnknownOutcome as error:
        outage = DependencyUnavailable(backend.dependency, str(error))
        # If the provider prevents duplicates, the record stays: the next attempt does not send a second mail.
        if begun is not record and backend.prevents_duplicate(begun):
            raise outage from error
        _hold_others(attempt, outage)
        if (
            begun is not record
            and get_settings().email_unknown_outcome == "hold"
            and not backend.prevents_duplicate(begun)
        ):
            raise PermanentFailure(_held(begun, str(error))) from error
        raise
    settled = _settle(begun, receipt, attempt)
    return _result(settled, backend, dropped, mail.message_id)


def admit(jobs: Sequence[tuple[EmailJob, Attempt]]) -> Sequence[Hold | None]:
    """Holds mails that the provider's rate limit would refuse now; all workers share that limit."""
    waits = get_backend().waits([attempt for _job, attempt in jobs])
    now = datetime.now(UTC)
    return [Hold(now + timedelta(seconds=wait), "the provider's rate limit") if wait else None for wait in waits]


def _after_unknown(record: SendRecord, backend: Backend) -> SendRecord:
    """Returns the record for this attempt if an earlier one may have sent the mail; raises if the job must end."""
    if record.state != "sending" or backend.prevents_duplicate(record):
        return record
    again = replace(record, unknown=record.unknown + 1)
    if get_settings().email_unknown_outcome == "hold":
        if not record.was_told():
            raise PermanentFailure(_held(record, "its worker died meanwhile"))
        again = replace(again, state="released")
    event(logging.WARNING, "mail sent again, its outcome was unknown", id=record.job_id)
    return again


def _hold_others(attempt: Attempt, outage: DependencyUnavailable) -> None:
    """Holds the queue for ``outage``. The attempt of this mail, which may have been sent, still counts."""
    with contextlib.suppress(*PASSING):
        report_away(get_connection(), base_queue(attempt.queue), attempt.job_id, outage)


def _held(record: SendRecord, reason: str) -> str:
    reason = " ".join(reason.split())  # on one line, as SendRecord.was_told searches it
    return (
        f"the mail {record.key} may have been sent. It was handed over at {record.handed_over}: {reason}. "
        f"Look whether it has arrived; if not, send it by: rqjobs failed requeue {record.job_id}"
    )


def _mail(job: EmailJob, record: SendRecord) -> tuple[Mail, dict[str, str]]:
    """Returns the mail, and its suppressed recipients with the reasons."""
    settings = get_settings()
    boxes = {name: [parse_address(text) for text in addresses(getattr(job, name))] for name in ("to", "cc", "bcc")}
    done = frozenset({*record.accepted, *record.refused})  # an address refused before is suppressed
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
        key=record.key,
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
        own_sender=job.sender is not None,
    )
    return mail, dropped


def _box(text: str | None) -> Mailbox | None:
    return parse_address(text) if text else None


def _settle(begun: SendRecord, receipt: Receipt, attempt: Attempt) -> SendRecord:
    """Stores the outcome of the mail; raises a retry if some of its addresses must be tried again."""
    accepted = [*begun.accepted, *receipt.accepted]
    refused = begun.refused | receipt.refused
    bounced = {address: reason for address, reason in receipt.refused.items() if is_hard_bounce(reason)}
    if receipt.later:
        begun.settle("partial", attempt, accepted=accepted, refused=refused)
    elif accepted:
        begun = begun.settle("sent", attempt, accepted=accepted, refused=refused, provider_id=receipt.provider_id)
    _remember(bounced, attempt.job_id)
    reason = "; ".join(f"{address}: {reason}" for address, reason in (receipt.later or refused).items())
    if receipt.later:
        raise later(f"{len(accepted)} accepted, not yet accepted {reason}")
    if not accepted:
        raise PermanentFailure(f"every recipient was refused: {reason}")
    return begun


def _suppressed(found: list[str]) -> dict[str, str]:
    try:
        return suppressed(found)
    except (RQJobsError, SQLAlchemyError) as error:
        outage = database_outage(error)
        if outage is None:
            raise
        raise outage from error


def _remember(bounced: dict[str, str], job_id: str) -> None:
    try:
        suppress(bounced, job_id=job_id)
    except (RQJobsError, SQLAlchemyError) as error:  # the next bounce adds the address
        event(logging.WARNING, "bounces not stored", id=job_id, error=str(error))


def _result(record: SendRecord, backend: Backend, dropped: dict[str, str], message_id: str) -> dict[str, Any]:
    return {
        "message_id": message_id,
        "backend": backend.name,
        "accepted": len(record.accepted),
        "refused": record.refused,
        "suppressed": dropped,
        "provider_id": record.provider_id,
    }
