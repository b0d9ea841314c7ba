"""Builds the request of a webhook: the body and the headers, signed by Standard Webhooks 1.0.0."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic_core import to_json

from rqjobs.attempt import JOB_ID, Attempt
from rqjobs.errors import PermanentFailure
from rqjobs.jobs import WebhookJob
from rqjobs.security.signing import sign


@dataclass(frozen=True, slots=True)
class Message:
    """The body and headers of one HTTP request."""

    body: bytes
    headers: list[str | bytes]
    """The headers as ``name: value``, ours last; bytes if a value may have characters beyond ASCII."""


def iso(moment: datetime) -> str:
    """Returns ``2026-11-23T22:35:08.123Z``, the format of JavaScript."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def build(job: WebhookJob, attempt: Attempt, *, keys: Sequence[bytes], legacy_key: bytes | None, now: float) -> Message:
    """Returns the message of this attempt. Body and ``webhook-id`` are the same in every attempt of the job.

    Args:
        job: the job to deliver.
        attempt: the attempt; its job_id is the receiver's idempotency key.
        keys: the signing keys, newest first; without one the message is unsigned.
        legacy_key: if given, adds the headers ``X-Webhook-*``, signed with this key.
        now: Unix time, for ``webhook-timestamp``.

    Raises:
        PermanentFailure: the job's id cannot be in a header; only a forged job has such an id.
    """
    if JOB_ID.fullmatch(attempt.job_id) is None:
        raise PermanentFailure("refused: the job's id has other characters than letters, digits, _ and -")
    stamp = iso(attempt.enqueued_at)
    body = to_json({"event": job.event, "payload": job.payload, "timestamp": stamp, "webhookId": job.webhook_id})
    headers: list[str | bytes] = [f"{name}: {value}" if value else f"{name};" for name, value in job.headers.items()]
    headers += [
        "content-type: application/json",
        f"webhook-id: {attempt.job_id}",
        f"webhook-timestamp: {int(now)}",
        f"webhook-attempt: {attempt.number}",
    ]
    if not any(name.lower() == "user-agent" for name in job.headers):
        headers.append("user-agent: rqjobs-webhooks/1")
    if keys:
        headers.append(f"webhook-signature: {sign(keys, attempt.job_id, int(now), body)}")
    if legacy_key is not None:
        headers += [
            f"X-Webhook-Signature: {hmac.new(legacy_key, body, hashlib.sha256).hexdigest()}",
            f"X-Webhook-Event: {job.event}",
            f"X-Webhook-Timestamp: {stamp}",
            f"X-Webhook-ID: {job.webhook_id}".encode(),
            f"X-Webhook-Attempt: {attempt.number}",
        ]
    return Message(body, headers)
