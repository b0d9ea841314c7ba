"""Translates SMTP replies (RFC 5321, 4.2; enhanced codes: RFC 3463) by their three digits and their text."""

from __future__ import annotations

import re
from datetime import timedelta

from rqjobs.errors import DependencyUnavailable, PermanentFailure, RetryLater
from rqjobs.processors.email.outcome import NotSent

_ENHANCED = re.compile(r"^(?:\d{3}[ -])?([245])\.(\d{1,3})\.(\d{1,3})\b")
_GREYLISTED = re.compile(r"gr[ae]y.?list", re.IGNORECASE)
_GREYLIST_WAIT = timedelta(minutes=5)  # the default of postgrey and rspamd
_TOO_MANY_RECIPIENTS = 552
_HARD = {"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"}
"""Codes of permanent failures: no such mailbox or host, moved, disabled, null MX (RFC 3463, RFC 7505)."""


MAIL_SERVER = "mail server"
"""The name under which health, alerts and metrics show the server at SMTP_URL."""
CLOSING = 421
"""The server closes the connection: it restarts, or is too busy (RFC 5321, 3.8)."""
SIGN_IN = (530, 534, 535, 538)
"""The server requires a login, or refuses ours (RFC 4954). Without 454, which some servers send for a recipient."""
_SYSTEM = re.compile(r"^(?:\d{3}[ -])?4\.3\.[12]\b")
"""RFC 3463: the mail system is full, or accepts no messages now."""


def is_transient(code: int, text: str, *, recipient: bool = False) -> bool:
    """Returns whether a refusal is temporary.

    Args:
        code: the reply's three digits.
        text: the text after the code.
        recipient: the reply is to one RCPT, where 552 means 'too many recipients' (RFC 5321, 4.5.3.1.10).
    """
    enhanced = _ENHANCED.match(text)
    if enhanced and enhanced[1] == "4":  # such as 550 4.7.1, which some servers send for a temporary refusal
        return True
    return code // 100 == 4 or (recipient and code == _TOO_MANY_RECIPIENTS)  # noqa: PLR2004


def refusal(what: str, code: int, text: str) -> Exception:
    """Returns the exception for a mail that the server has refused as a whole."""
    reason = f"{what}: {reply_line(code, text)}"
    if code in (CLOSING, *SIGN_IN) or _SYSTEM.match(text):
        return away(reason)
    if not is_transient(code, text):
        return PermanentFailure(reason)
    return later(reason)


def away(reason: str) -> DependencyUnavailable:
    """Returns the exception for a mail server that is unavailable for all mails."""
    return DependencyUnavailable(MAIL_SERVER, reason)


def later(reason: str) -> Exception:
    """Returns the exception for a retry: by the policy, or after five minutes if the text mentions greylisting."""
    if _GREYLISTED.search(reason):
        return RetryLater(_GREYLIST_WAIT, reason)
    return NotSent(reason)


def is_hard_bounce(reason: str) -> bool:
    """Returns whether a refusal means that the address does not exist; then it is added to the suppression list."""
    enhanced = _ENHANCED.match(reason)
    return enhanced is not None and ".".join(enhanced.groups()) in _HARD


def reply_line(code: int, text: str) -> str:
    """Returns a reply as one line, cut to the length that a dead letter shows."""
    return " ".join(f"{code} {text}".split())[:300]
