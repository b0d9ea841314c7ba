"""Signed jobs: with RQJOBS_SIGN_JOBS, workers run only jobs enqueued by a process that has RQJOBS_SECRET_KEY.

A signature is an HMAC-SHA256 over the queue, the job's id, the names of its callbacks, and its data before deflation,
under a key derived from RQJOBS_SECRET_KEY. It is a field of the job's hash, and is checked before the data is decoded.
The fields that workers change (status, times, retries) are not signed: an attacker with write access to Redis can
delete, delay and repeat jobs, but cannot make workers run other ones.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Iterator, Sequence
from functools import lru_cache

from rqjobs.config.secret_key import secret_key
from rqjobs.config.settings import get_settings

FIELD = "signature"
"""The field of a job's hash that has the signature."""

NOT_SIGNED = "refused: the job is not signed with RQJOBS_SECRET_KEY, which RQJOBS_SIGN_JOBS demands; enqueue it again"
"""The error of a job that is not signed, or has an invalid signature."""

_NONE = ("", "", "")


def signs_jobs() -> bool:
    """Returns whether this process signs and checks jobs."""
    return get_settings().rqjobs_sign_jobs


def sign(queue: str, job_id: str, data: bytes, callbacks: Sequence[str] = _NONE) -> str:
    """Returns the signature of a job, 44 characters.

    Args:
        queue: the queue's name, without the priority of the lane.
        job_id: the job's id.
        data: the function and its arguments as JSON, not deflated.
        callbacks: the names of the functions that RQ calls at the job's success, failure and stop.
    """
    return _digest(secret_key(), queue, job_id, data, callbacks).decode()


def is_signed(signature: bytes | None, queue: str, job_id: str, data: bytes, callbacks: Sequence[str] = _NONE) -> bool:
    """Returns whether ``signature`` is valid for the current key or one of RQJOBS_SECRET_KEY_OLD."""
    return bool(signature) and any(
        hmac.compare_digest(signature or b"", _digest(secret, queue, job_id, data, callbacks)) for secret in _secrets()
    )


def seal(text: str, job_id: str) -> str:
    """Returns ``text`` followed by a line break and its signature, for a text that another process acts on.

    Without RQJOBS_SIGN_JOBS the text is returned unchanged.
    """
    return f"{text}\n{sign('(text)', job_id, text.encode())}" if signs_jobs() else text


def unseal(sealed: bytes, job_id: str) -> bytes | None:
    """Returns the text passed to :func:`seal`; None if RQJOBS_SIGN_JOBS is on and the signature is invalid."""
    text, _, signature = sealed.partition(b"\n")
    return None if signs_jobs() and not is_signed(signature, "(text)", job_id, text) else text


def _secrets() -> Iterator[str]:
    yield secret_key()
    if (old := get_settings().rqjobs_secret_key_old) is not None:
        yield from old.get_secret_value().split()


@lru_cache(16)
def _key(secret: str) -> bytes:
    return hmac.digest(secret.encode(), b"rqjobs signed jobs", "sha256")


def _digest(secret: str, queue: str, job_id: str, data: bytes, callbacks: Sequence[str]) -> bytes:
    # Each part follows its length, so that two different jobs cannot give the same text.
    head = "".join([f"{len(part)}:{part}" for part in (queue, job_id, *callbacks)])
    return b64encode(hmac.digest(_key(secret), head.encode(errors="surrogatepass") + data, "sha256"))
