"""Signatures by Standard Webhooks 1.0.0 (https://www.standardwebhooks.com); pure functions."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from functools import lru_cache

from rqjobs.errors import RQJobsError

_PREFIX = "whsec_"
_KEY_BYTES = range(24, 65)
MOST_SIGNATURES = 5
"""The most signatures in one request; receivers may refuse more."""
_STAMP = re.compile("[0-9]{1,12}")


class InvalidSignature(RQJobsError):
    """A received webhook whose signature is not valid; the message is the reason."""


def parse_secret(secret: str) -> bytes:
    """Returns the key in ``secret``, which is ``whsec_`` and base64 of 24 to 64 bytes.

    Raises:
        ValueError: it is not such a secret.
    """
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not secret.startswith(_PREFIX) or len(key) not in _KEY_BYTES:
        raise ValueError("a signing secret is whsec_ followed by base64 of 24 to 64 bytes")
    return key


def sign(keys: Iterable[bytes], webhook_id: str, timestamp: int, body: bytes) -> str:
    """Returns the ``webhook-signature`` header: one ``v1,...`` for each key, separated by blanks."""
    content = b"%s.%d.%s" % (webhook_id.encode(), timestamp, body)
    return " ".join(["v1," + _mac(key, content) for key in keys])


def _mac(key: bytes, content: bytes) -> str:
    mac = _keyed(key).copy()
    mac.update(content)
    return base64.b64encode(mac.digest()).decode()


@lru_cache(1000)
def _keyed(key: bytes) -> hmac.HMAC:
    """Returns an HMAC prepared with the key, cached: that is half of the time for a short message."""
    return hmac.new(key, digestmod=hashlib.sha256)


def verify(
    secrets: str | Iterable[str],
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float,
    tolerance: timedelta = timedelta(minutes=5),
) -> None:
    """Checks a received webhook. For receivers: call it with the raw body, before parsing.

    Args:
        secrets: the receiver's ``whsec_`` secret, or several during a rotation.
        headers: the request's headers, in any case.
        body: the exact bytes received.
        now: the current Unix time, ``time.time()``.
        tolerance: the largest difference of the timestamp: five minutes, as Standard Webhooks recommends.

    Raises:
        InvalidSignature: a header is missing, the timestamp differs too much, or no signature is valid.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    try:
        webhook_id, stamp, signatures = (lower[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
        if not _STAMP.fullmatch(stamp):
            raise ValueError(stamp)  # noqa: TRY301
        timestamp, given = int(stamp), signatures.encode().split()
        webhook_id.encode()
    except (KeyError, ValueError):  # ValueError: also for a lone surrogate
        raise InvalidSignature("webhook-id, webhook-timestamp or webhook-signature is missing or malformed") from None
    if abs(now - timestamp) > tolerance.total_seconds():
        raise InvalidSignature("the webhook-timestamp is too far from now: a replay, or a wrong clock")
    keys = [parse_secret(secret) for secret in ([secrets] if isinstance(secrets, str) else secrets)]
    expected = sign(keys, webhook_id, timestamp, body).split()
    if not any(hmac.compare_digest(ours.encode(), theirs) for ours in expected for theirs in given):
        raise InvalidSignature("no signature fits the body: another secret, or the body was changed")
