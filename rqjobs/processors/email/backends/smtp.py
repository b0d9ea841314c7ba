"""EMAIL_BACKEND=smtp: the protocol step by step (RFC 5321), so that each error has a known outcome."""

from __future__ import annotations

import contextlib
import os
import re
import smtplib
import ssl
import threading
import time
from collections.abc import Iterator, Sequence

from rqjobs.attempt import Attempt
from rqjobs.config.settings import get_settings
from rqjobs.errors import PermanentFailure
from rqjobs.mail.smtp import Server, parse_smtp_url, sign_in
from rqjobs.processors.email.backends import Begin
from rqjobs.processors.email.message import Mail, build
from rqjobs.processors.email.outcome import NotSent, Receipt, UnknownOutcome
from rqjobs.processors.email.replies import (
    CLOSING,
    MAIL_SERVER,
    SIGN_IN,
    away,
    is_transient,
    later,
    refusal,
    reply_line,
)
from rqjobs.processors.email.send_record import SendRecord

_TIMEOUT = 30.0  # the most seconds for a single step
_MAX_MAILS = 100  # the most mails on one connection: servers have limits


_WANTS_LOGIN = 530


class _Kept:
    """The connection of a thread, kept for the next mails, which saves the greeting, TLS and the login."""

    smtp: smtplib.SMTP | None = None
    opened_for: tuple[int, str] | None = None
    mails = 0

    def close(self) -> None:
        """Closes the connection."""
        if self.smtp is not None:
            self.smtp.close()
        self.smtp = None

    def __del__(self) -> None:
        """Closes the connection when the thread has ended."""
        self.close()


_local = threading.local()


def _kept() -> _Kept:
    if not hasattr(_local, "kept"):
        _local.kept = _Kept()
    kept: _Kept = _local.kept
    return kept


class SMTPBackend:
    """Sends mails by the server at SMTP_URL."""

    name = "smtp"
    dependency = MAIL_SERVER

    def send(self, mail: Mail, begin: Begin, remaining: float) -> Receipt:
        """Runs one transaction: sender, recipients, text, and the final dot, after which the server has the mail."""
        deadline = time.monotonic() + remaining
        smtp = _connected(get_settings().smtp_url.get_secret_value(), deadline)
        done = False
        try:
            receipt = _transact(smtp, mail, begin, deadline)
            done = True
        finally:
            if not done:
                _kept().close()
        return receipt

    def prevents_duplicate(self, record: SendRecord) -> bool:  # noqa: ARG002  # the protocol has no idempotency
        """Returns False: a server accepts the same mail twice."""
        return False

    def waits(self, attempts: Sequence[Attempt]) -> list[float]:
        """Returns zeros: the server's limit is unknown; RQJOBS_EMAIL_RATE sets one."""
        return [0.0] * len(attempts)


BACKEND = SMTPBackend()


def _connected(url: str, deadline: float) -> smtplib.SMTP:
    """Returns this thread's connection if it works, otherwise a new one."""
    kept, wanted = _kept(), (os.getpid(), url)
    if kept.smtp is not None and kept.opened_for == wanted and kept.mails < _MAX_MAILS:
        kept.mails += 1
        with contextlib.suppress(smtplib.SMTPException, OSError):
            _limit(kept.smtp, deadline)
            if kept.smtp.rset()[0] == 250:  # noqa: PLR2004
                return kept.smtp
    kept.close()
    server = parse_smtp_url(url)
    with _connecting(server):
        kept.smtp = sign_in(server, max(0.1, min(_TIMEOUT, deadline - time.monotonic())))
    kept.opened_for, kept.mails = wanted, 1
    return kept.smtp


def _limit(smtp: smtplib.SMTP, deadline: float) -> None:
    """Sets the timeout of the next step, so that no step exceeds the job's time limit."""
    if smtp.sock is not None:
        smtp.sock.settimeout(max(0.1, min(_TIMEOUT, deadline - time.monotonic())))


@contextlib.contextmanager
def _connecting(server: Server) -> Iterator[None]:
    """Translates errors before a mail is named: nothing was sent, and no mail is the cause."""
    where = f"{server.host}:{server.port}"
    try:
        yield
    except smtplib.SMTPResponseException as error:  # the greeting, EHLO, STARTTLS, the login
        text = error.smtp_error.decode(errors="replace") if isinstance(error.smtp_error, bytes) else error.smtp_error
        hint = "; check the user and password in SMTP_URL" if error.smtp_code in SIGN_IN else ""
        raise away(f"{where}: {reply_line(error.smtp_code, text)}{hint}") from None
    except ssl.SSLCertVerificationError as error:
        raise away(
            f"{where}: its certificate cannot be trusted: {error.verify_message}. "
            "Name its host as the certificate does, or its authority by ?ca=FILE in SMTP_URL"
        ) from None
    except (smtplib.SMTPException, OSError) as error:  # SMTPNotSupportedError as well: no TLS, or no login
        raise away(f"{where}: {str(error) or type(error).__name__}") from error
    except ValueError as error:
        raise away(str(error)) from None


def _transact(smtp: smtplib.SMTP, mail: Mail, begin: Begin, deadline: float) -> Receipt:
    message = build(mail)
    body = re.sub(rb"(?m)^\.", b"..", message)  # transparency: RFC 5321, 4.5.2
    try:
        _limit(smtp, deadline)
        code, text = _mail_from(smtp, mail, len(message))
        if code != 250:  # noqa: PLR2004
            raise refusal("the sender was refused", code, text)
        receipt = _recipients(smtp, mail)
        if not receipt.accepted:
            if len(receipt.later) == len(mail.recipients):  # no recipient was accepted, so nothing is recorded
                raise later("; ".join(f"{address}: {reason}" for address, reason in receipt.later.items()))
            smtp.rset()
            return receipt
        code, text = _reply(smtp.docmd("DATA"))
        if code != 354:  # noqa: PLR2004
            raise refusal("the mail was refused", code, text)
        smtp.send(body if body.endswith(b"\r\n") else body + b"\r\n")
    except (smtplib.SMTPException, OSError) as error:
        words = str(error) or type(error).__name__
        if isinstance(error, smtplib.SMTPException) and not isinstance(error, smtplib.SMTPServerDisconnected):
            raise NotSent(f"the SMTP dialogue failed: {words}") from error
        # The server is shutting down, or rejects only this mail: the hold finds out which, and counts the latter.
        raise away(f"the connection broke before the mail was complete: {words}") from error
    begin()
    try:
        _limit(smtp, deadline)
        smtp.send(b".\r\n")  # from here on the server may have the mail
        code, text = _reply(smtp.getreply())
    except (smtplib.SMTPException, OSError) as error:
        raise UnknownOutcome(
            f"the SMTP connection broke before the server's answer: {str(error) or type(error).__name__}"
        ) from error
    if code != 250:  # noqa: PLR2004
        raise refusal("the mail was refused", code, text)
    return Receipt(accepted=receipt.accepted, refused=receipt.refused, later=receipt.later, provider_id=text[:200])


def _reply(reply: tuple[int, bytes]) -> tuple[int, str]:
    return reply[0], reply[1].decode(errors="replace")


def _mail_from(smtp: smtplib.SMTP, mail: Mail, size: int) -> tuple[int, str]:
    options = []
    if mail.needs_utf8:
        if not smtp.has_extn("smtputf8"):
            raise PermanentFailure(
                "the SMTP server takes no addresses with letters beyond ASCII before the @ (SMTPUTF8)"
            )
        options += ["SMTPUTF8", "BODY=8BITMIME"]
        smtp.command_encoding = "utf-8"
    else:
        smtp.command_encoding = "ascii"
    if smtp.has_extn("size"):
        limit = smtp.esmtp_features["size"]
        if limit.isdigit() and 0 < int(limit) < size:
            raise PermanentFailure(f"the mail has {size} bytes, and the SMTP server takes {limit}; send links instead")
        options.append(f"SIZE={size}")
    return _reply(smtp.mail(mail.sender.address, options))


def _recipients(smtp: smtplib.SMTP, mail: Mail) -> Receipt:
    receipt = Receipt(accepted=[])
    for address in mail.recipients:
        code, text = _reply(smtp.rcpt(address))
        reason = reply_line(code, text)
        if code in (250, 251, 252):
            receipt.accepted.append(address)
        elif code in (CLOSING, _WANTS_LOGIN) and not receipt.accepted:
            raise away(reason)
        elif code == CLOSING:
            raise later(reason)
        elif is_transient(code, text, recipient=True):
            receipt.later[address] = reason
        else:
            receipt.refused[address] = reason
    return receipt
