"""Signed jobs: with RQJOBS_SIGN_JOBS a worker runs only jobs that a process with RQJOBS_SECRET_KEY has enqueued.

A signature is HMAC-SHA256 over the queue, the job's id, the names of its callbacks, and its data as it is before it is
deflated, under a key that is derived from RQJOBS_SECRET_KEY. It is in a field of the job's hash, and is checked before
the data is decoded. Not signed is what a worker changes as a job goes on (status, times, retries): a Redis writer can
delete, delay and repeat jobs, but run none of his own.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Iterator, Sequence
from functools import lru_cache

from rqjobs.config.secret_key import secret_key
from rqjobs.config.settings import get_settings

FIELD = "signature"
"""The field of a job's hash."""

NOT_SIGNED = "refused: the job is not signed with RQJOBS_SECRET_KEY, which RQJOBS_SIGN_JOBS demands; enqueue it again"
"""Why an unsigned job, or one whose signature does not fit, is dead."""

_NONE = ("", "", "")


def signs_jobs() -> bool:
    """Whether jobs are signed and checked in this process."""
    return get_settings().rqjobs_sign_jobs


def sign(queue: str, job_id: str, data: bytes, callbacks: Sequence[str] = _NONE) -> str:
    """The signature of a job, 44 characters.

    Args:
        queue: the queue, whatever the job's lane.
        job_id: the job's id.
        data: the function and its arguments as JSON, not deflated.
        callbacks: the names of the functions that RQ calls at the job's success, its failure and its stop.
    """
    return _digest(secret_key(), queue, job_id, data, callbacks).decode()


def is_signed(signature: bytes | None, queue: str, job_id: str, data: bytes, callbacks: Sequence[str] = _NONE) -> bool:
    """Whether ``signature`` is that of :func:`sign` under the present key or one of RQJOBS_SECRET_KEY_OLD."""
    return bool(signature) and any(
        hmac.compare_digest(signature or b"", _digest(secret, queue, job_id, data, callbacks)) for secret in _secrets()
    )


def seal(text: str, job_id: str) -> str:
    """``text``, which a job leaves in Redis for another to act on, with its signature behind a line break.

    Without RQJOBS_SIGN_JOBS it stays as it is.
    """
    return f"{text}\n{sign('(text)', job_id, text.encode())}" if signs_jobs() else text


def unseal(sealed: bytes, job_id: str) -> bytes | None:
    """The text that :func:`seal` was given; None if RQJOBS_SIGN_JOBS demands a signature and it does not fit."""
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
    # Each part has its length before it: no two different jobs make one text.
    head = "".join([f"{len(part)}:{part}" for part in (queue, job_id, *callbacks)])
    return b64encode(hmac.digest(_key(secret), head.encode(errors="surrogatepass") + data, "sha256"))
