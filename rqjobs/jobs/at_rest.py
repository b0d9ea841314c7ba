"""Encrypts the secret field of a job for Redis, the outbox and the delivery log; decrypts it for the processor."""

from __future__ import annotations

from typing import TypeVar

from rqjobs.config.encryption import Store, is_encrypted, keyring
from rqjobs.jobs.base import JobModel

ModelT = TypeVar("ModelT", bound=JobModel)


def encrypt_job(job: ModelT, job_id: str, store: Store = "redis") -> ModelT:
    """Returns ``job`` with the values of its secret field encrypted, if encryption is on for ``store``."""
    texts = _secret_texts(job)
    if not texts or store not in (ring := keyring()).stores:
        return job
    found = {name: ring.encrypt(text, _place(job, job_id, name), store) for name, text in texts.items()}
    return job.model_copy(update={str(job.encrypted_field): found})


def decrypt_job(job: ModelT, job_id: str) -> ModelT:
    """Returns ``job`` with its secret field decrypted, for its processor.

    Raises:
        UnreadableSecret: a value cannot be decrypted with the keys of this process.
    """
    texts = _secret_texts(job)
    if not texts or not any(is_encrypted(text) for text in texts.values()):
        return job
    ring = keyring()
    found = {name: ring.decrypt(text, _place(job, job_id, name)) for name, text in texts.items()}
    return job.model_copy(update={str(job.encrypted_field): found})


def _secret_texts(job: JobModel) -> dict[str, str]:
    return {} if job.encrypted_field is None else getattr(job, job.encrypted_field)


def _place(job: JobModel, job_id: str, name: str) -> tuple[str, ...]:
    return (f"the header {name!r}", "job", job_id, job.secret_place())
